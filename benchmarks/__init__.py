"""Speed as ratios: ours against a plain implementation of the published algorithm, in one run."""
