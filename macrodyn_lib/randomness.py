"""Named random streams from one seed: a new consumer never shifts another's draws."""

import hashlib

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator that belongs to ``names`` under ``seed``.

    The names are hashed into the entropy of a ``SeedSequence``, so streams of different names are
    independent and the order in which they are asked for does not matter.

    Args:    seed: >= 0.  names: the path of the consumer, e.g. ``("small", 3)``.
    Returns: a PCG64 generator.
    Raises:  ValueError: seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed = {seed}: must be a non-negative integer")
    path = "/".join(str(name) for name in names)
    words = np.frombuffer(hashlib.sha256(path.encode()).digest(), dtype=np.uint32)
    return np.random.default_rng(np.random.SeedSequence([seed, *words.tolist()]))
