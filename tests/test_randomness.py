"""Named streams and chunks: independent, reproducible, the same for any number of threads."""

import numpy as np
import pytest

from macrodyn_lib.parallel import map_chunks, thread_count
from macrodyn_lib.randomness import stream


def draws(*arguments):
    return stream(*arguments).random(4).tolist()


def test_stream_repeats_for_same_seed_and_names():
    assert draws(7, "small", 3) == draws(7, "small", 3)


def test_stream_differs_for_every_seed_and_name():
    asked = [(7,), (8,), (7, "small"), (7, "small", 3), (7, "small", 4), (7, "large"), (2**40, "a")]
    assert len({tuple(draws(*arguments)) for arguments in asked}) == len(asked)


def test_stream_does_not_depend_on_other_streams():
    expected = draws(7, "fit")
    stream(7, "another consumer").random(1000)
    assert draws(7, "fit") == expected


def test_streams_are_uncorrelated():
    # correlation of n independent pairs has standard error n^-1/2; |z| < 4: false alarm 6e-5
    count = 10_000
    first, second = stream(7, "a").random(count), stream(7, "b").random(count)
    assert abs(np.corrcoef(first, second)[0, 1]) * np.sqrt(count) < 4


def test_stream_raises_for_negative_seed():
    with pytest.raises(ValueError, match=r"seed = -1: must be a non-negative integer"):
        stream(-1)


def chunk_draws(count, chunk, rng):
    return map_chunks(
        lambda rows, generator: (rows, generator.random(rows.stop - rows.start)),
        count,
        rng,
        chunk=chunk,
    )


@pytest.mark.parametrize(("count", "chunk"), [(10, 4), (8, 4), (3, 4), (1, 1)])
def test_chunks_cover_the_batch_in_order(count, chunk):
    parts = chunk_draws(count, chunk, np.random.default_rng(0))
    covered = np.concatenate([np.arange(count)[rows] for rows, _ in parts])
    np.testing.assert_array_equal(covered, np.arange(count))
    numbers = np.concatenate([values for _, values in parts])
    assert len(np.unique(numbers)) == count  # no generator is used twice


def test_chunks_give_same_bits_for_any_number_of_threads(monkeypatch):
    results = []
    for threads in ("1", "4"):
        monkeypatch.setenv("MACRODYN_THREADS", threads)
        assert thread_count() == int(threads)
        parts = chunk_draws(1000, 7, np.random.default_rng(3))
        results.append(np.concatenate([values for _, values in parts]))
    np.testing.assert_array_equal(*results)


def test_chunks_of_second_call_differ_from_first():
    rng = np.random.default_rng(3)
    first, second = (chunk_draws(5, 5, rng)[0][1] for _ in range(2))
    assert not np.array_equal(first, second)
