"""Time two ways of doing the same work in turn."""

import dataclasses
import time
from collections.abc import Callable

import numpy as np

# A side returns how many units of work it did; it is timed from outside.
Side = Callable[[], int]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Rates (units of work per second) of both sides, one entry a round."""

    name: str
    unit: str
    ours: np.ndarray
    plain: np.ndarray


def compare(name: str, unit: str, ours: Side, plain: Side, rounds: int = 5) -> Comparison:
    """Run both sides once uncounted (compilation, imports), then ``rounds`` times in turn."""
    _rate(ours), _rate(plain)
    rates = np.array([(_rate(ours), _rate(plain)) for _ in range(rounds)])
    return Comparison(name=name, unit=unit, ours=rates[:, 0], plain=rates[:, 1])


def _rate(side: Side) -> float:
    start = time.perf_counter()
    work = side()
    return work / (time.perf_counter() - start)
