"""One set-up for all tests: no display, no time limits per example, the same examples each run."""

import os

os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis

hypothesis.settings.register_profile("macrodyn", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("macrodyn")
