"""Chunks of a batch in threads, whole tasks in processes: the same bits for any number of them."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import joblib
import numpy as np
from tqdm.auto import tqdm

from macrodyn_lib.errors import ParameterError

Result = TypeVar("Result")


def thread_count() -> int:
    """Threads used for sampling: ``MACRODYN_THREADS``, else the processors this process may use.

    Raises: ParameterError: ``MACRODYN_THREADS`` is not a whole number from 1 on.
    """
    given = os.environ.get("MACRODYN_THREADS") or str(joblib.cpu_count())
    if not (given.isdecimal() and int(given) > 0):
        raise ParameterError(f"MACRODYN_THREADS = {given!r}: must be a whole number >= 1")
    return int(given)


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


def map_tasks(
    function: Callable[..., Result],
    tasks: Sequence[tuple[Any, ...]],
    *,
    description: str | None = None,
    hidden: bool | None = None,
) -> list[Result]:
    """``[function(*task) for task in tasks]`` in processes, with a progress bar.

    For tasks of seconds that hold the interpreter (fits, rollouts); each brings its own generator.
    With one thread (``MACRODYN_THREADS=1``, as in a sweep) they run here, one after the other.
    """
    jobs = min(thread_count(), len(tasks))
    calls = (joblib.delayed(function)(*task) for task in tasks)
    results = joblib.Parallel(n_jobs=jobs, return_as="generator")(calls)
    return list(tqdm(results, total=len(tasks), desc=description, disable=hidden))
