"""``make bench``: every benchmark, one table of ratios.

SDE training: 5e4 pairs, d = 4, two MLPs of 64x3, epochs of the same data. Curie-Weiss: n = 64^2.

Both sides of a ratio are timed in turn, several times, in this process; the table gives the median
of each and the range of the ratio, so that a busy machine shows as a wide range.
"""

from collections.abc import Callable

import numpy as np
import torch

from benchmarks import curie_weiss, training
from benchmarks.timing import Comparison, compare

BENCHMARKS: list[Callable[[], Comparison]] = [
    lambda: compare(
        "SDE training, all K = 16 patches evolved", "pairs/s", training.ours_merged, training.plain
    ),
    lambda: compare("SDE training, one patch a snapshot", "pairs/s", training.ours, training.plain),
    lambda: compare(
        "Curie-Weiss events, spins kept", "events/s", curie_weiss.spins, curie_weiss.plain
    ),
    lambda: compare(
        "Curie-Weiss events, lumped", "events/s", curie_weiss.lumped, curie_weiss.plain
    ),
    lambda: compare(
        "  the same, plain loop compiled", "events/s", curie_weiss.lumped, curie_weiss.compiled
    ),
]


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'what':42} {'ours':>9} {'plain':>9} {'unit':9} {'ratio':>7}  range")
    for benchmark in BENCHMARKS:
        result = benchmark()
        ratios = result.ours / result.plain
        print(
            f"{result.name:42} {np.median(result.ours):9.2g} {np.median(result.plain):9.2g} "
            f"{result.unit:9} {np.median(ratios):7.1f}  {ratios.min():.1f} to {ratios.max():.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
