"""``make bench``: every benchmark, one table of ratios; or those named: ``-m benchmarks ising``.

SDE training: 5e4 pairs, d = 4, two MLPs of 64x3, epochs of the same data. Curie-Weiss: n = 64^2.
Ising: L = 64, T = 2.5, h = 0.1, and h = 0 in the rows that compare replicas. Predator-prey: n =
200, K = 5, dt = 0.01, two closures. Sweeps: all cores, one round; there a ratio of 1 is the best
that can be, and below 1 meets the goal.

Both sides of a ratio are timed in turn, several times, in this process, on one core; the table
gives the median of each and the range of the ratio, so that a busy machine shows as a wide range.
"""

import argparse
import os
from collections.abc import Callable

import numpy as np
import torch

from benchmarks import curie_weiss, ising, nbmota, predator_prey, sweeps, training
from benchmarks.timing import Comparison, compare

BENCHMARKS: dict[str, Callable[[], list[Callable[[], Comparison | list[Comparison]]]]] = {
    "training": lambda: [
        lambda: compare(
            "SDE training, all K = 16 patches evolved",
            "pairs/s",
            training.ours_merged,
            training.plain,
        ),
        lambda: compare(
            "SDE training, one patch a snapshot", "pairs/s", training.ours, training.plain
        ),
    ],
    "curie_weiss": lambda: [
        lambda: compare(
            "Curie-Weiss events, spins kept", "events/s", curie_weiss.spins, curie_weiss.plain
        ),
        lambda: compare(
            "Curie-Weiss events, lumped", "events/s", curie_weiss.lumped, curie_weiss.plain
        ),
        lambda: compare(
            "  the same, plain loop compiled", "events/s", curie_weiss.lumped, curie_weiss.compiled
        ),
    ],
    "ising": lambda: [*ising.BENCHMARKS],
    "predator_prey": lambda: [*predator_prey.BENCHMARKS],
    "nbmota": lambda: [*nbmota.rows()],
    "sweeps": lambda: [sweeps.measure],
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ratios of speed.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    names = parser.parse_args().names
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"NAME = {unknown[0]}: must be one of {', '.join(BENCHMARKS)}")
    torch.set_num_threads(1)
    os.environ["MACRODYN_THREADS"] = "1"
    print(f"{'what':42} {'ours':>9} {'plain':>9} {'unit':10} {'ratio':>7}  range")
    for benchmark in [each for name in names or BENCHMARKS for each in BENCHMARKS[name]()]:
        results = benchmark()
        for result in results if isinstance(results, list) else [results]:
            show(result)


def show(result: Comparison) -> None:
    ratios = result.ours / result.plain
    digits = 1 if np.median(ratios) >= 10 else 2
    print(
        f"{result.name:42} {np.median(result.ours):9.2g} {np.median(result.plain):9.2g} "
        f"{result.unit:10} {np.median(ratios):7.{digits}f}  "
        f"{ratios.min():.{digits}f} to {ratios.max():.{digits}f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
