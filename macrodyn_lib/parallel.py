"""Sample chunks of a batch in threads, with the same bits for any number of threads."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import joblib
import numpy as np
from tqdm.auto import tqdm

Result = TypeVar("Result")


def thread_count() -> int:
    """Threads used for sampling: ``MACRODYN_THREADS``, else the processors this process may use."""
    return int(os.environ.get("MACRODYN_THREADS") or joblib.cpu_count())


def map_chunks(
    function: Callable[[slice, np.random.Generator], Result],
    count: int,
    rng: np.random.Generator,
    *,
    chunk: int,
    description: str | None = None,
) -> list[Result]:
    """Apply ``function(rows, generator)`` to consecutive slices of ``range(count)``.

    The chunks and their generators depend on ``count``, ``chunk`` and ``rng`` alone, so the result
    is the same for every number of threads. The kernels release the interpreter lock.

    Args:    count: length of the batch.  chunk: rows per call.  description: shows a progress bar.
    Returns: the results, in the order of the chunks.
    """
    slices = [slice(start, min(start + chunk, count)) for start in range(0, count, chunk)]
    generators = rng.spawn(len(slices))
    with ThreadPoolExecutor(thread_count()) as pool:
        results = pool.map(function, slices, generators)
        hidden = description is None
        return list(tqdm(results, total=len(slices), desc=description, disable=hidden or None))
