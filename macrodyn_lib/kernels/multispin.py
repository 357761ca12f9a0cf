"""Multi-spin coding: 64 replicas of an Ising lattice in the bits of one word per site.

Glauber dynamics is the heat bath: each site is attempted at the times of a Poisson clock of rate 1
and set up with probability p(neighbours up), whatever it was. The 64 replicas of a word share the
clock and the order of the sites; each draws its own uniform number, so each by itself has exactly
the law of the spin-by-spin process. The numbers of a word are compared with the five thresholds p
bit by bit, from the highest bit on, until all 64 comparisons are decided (after about 7 bits).
"""

import numba
import numpy as np

THRESHOLD_BITS = 64


@numba.njit(nogil=True, cache=True)
def _next(seed: np.ndarray) -> np.uint64:
    """The next 64 random bits of xoshiro256++ (Blackman, Vigna 2019); seed (4,) uint64, changed."""
    s0, s1, s2, s3 = seed[0], seed[1], seed[2], seed[3]
    total = s0 + s3
    result = ((total << np.uint64(23)) | (total >> np.uint64(41))) + s0
    shifted = s1 << np.uint64(17)
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= shifted
    seed[0], seed[1], seed[2] = s0, s1, s2
    seed[3] = (s3 << np.uint64(45)) | (s3 >> np.uint64(19))
    return result


@numba.njit(nogil=True, cache=True)
def attempt(
    words: np.ndarray,
    box: tuple[int, int, int, int],
    thresholds: np.ndarray,
    attempts: int,
    seed: np.ndarray,
) -> None:
    """Attempt ``attempts`` random sites of a box; all other sites stay frozen.

    words (R, C) uint64, changed; box: first row, first column, height, width (wraps around);
    thresholds (bits, 5) uint64: all ones where that bit of p(neighbours up) is set, highest first;
    seed (4,) uint64: state of the random bits, changed.
    """
    rows, columns = words.shape
    first_row, first_column, height, width = box
    n_sites = height * width
    scale = n_sites / 2.0**53
    for _ in range(attempts):
        site = int(np.float64(_next(seed) >> np.uint64(11)) * scale)
        r = site // width
        c = site - r * width
        r += first_row
        c += first_column
        r = r - rows if r >= rows else r
        c = c - columns if c >= columns else c
        a = words[r - 1 if r > 0 else rows - 1, c]
        b = words[r + 1 if r + 1 < rows else 0, c]
        d = words[r, c - 1 if c > 0 else columns - 1]
        e = words[r, c + 1 if c + 1 < columns else 0]
        # the neighbours up, counted in all replicas at once: two half adders, then their sum
        odd_1, both_1, odd_2, both_2 = a ^ b, a & b, d ^ e, d & e
        odd = odd_1 ^ odd_2
        carry = odd_1 & odd_2
        four = both_1 & both_2
        zero = ~(a | b | d | e)
        two = (carry | both_1 | both_2) & ~odd & ~four
        three = odd & (both_1 | both_2)
        one = odd & ~three
        below = np.uint64(0)
        undecided = ~below
        for bit in range(THRESHOLD_BITS):
            threshold = (
                (zero & thresholds[bit, 0])
                | (one & thresholds[bit, 1])
                | (two & thresholds[bit, 2])
                | (three & thresholds[bit, 3])
                | (four & thresholds[bit, 4])
            )
            differs = _next(seed) ^ threshold
            below |= undecided & differs & threshold
            undecided &= ~differs
            if undecided == 0:
                break
        words[r, c] = below


@numba.njit(nogil=True, cache=True)
def relax_boxes(
    words: np.ndarray,
    boxes: np.ndarray,
    thresholds: np.ndarray,
    attempts: np.ndarray,
    seeds: np.ndarray,
) -> None:
    """Attempt sites of one box after the other, each among the frozen rest of its lattice.

    words (W, R, C) uint64, changed; boxes (N, 4); attempts (W, N); seeds (W, 4), changed.
    """
    for word in range(len(words)):
        for index in range(len(boxes)):
            box = (boxes[index, 0], boxes[index, 1], boxes[index, 2], boxes[index, 3])
            attempt(words[word], box, thresholds, attempts[word, index], seeds[word])


@numba.njit(nogil=True, cache=True)
def relax_and_count(
    words: np.ndarray,
    boxes: np.ndarray,
    thresholds: np.ndarray,
    attempts: np.ndarray,
    seeds: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Rounds of ``relax_boxes``, and after each of them the classes of all spins.

    words (W, R, C) uint64, changed; boxes (N, 4); attempts (W, T, N); seeds (W, 4), changed;
    counts (W, 64, T, 10), written.
    """
    for word in range(len(words)):
        for index in range(attempts.shape[1]):
            for which in range(len(boxes)):
                box = (boxes[which, 0], boxes[which, 1], boxes[which, 2], boxes[which, 3])
                attempt(words[word], box, thresholds, attempts[word, index, which], seeds[word])
            count_classes(words[word], counts[word, :, index])


@numba.njit(nogil=True, cache=True)
def count_classes(words: np.ndarray, counts: np.ndarray) -> None:
    """Spins down with 0 to 4 neighbours up, then spins up, of the 64 replicas.

    words (R, C), periodic; counts (64, 10), written.
    """
    rows, columns = words.shape
    planes = np.zeros((10, 64), dtype=np.uint64)
    for r in range(rows):
        above = r - 1 if r > 0 else rows - 1
        below = r + 1 if r + 1 < rows else 0
        for c in range(columns):
            a, b = words[above, c], words[below, c]
            d = words[r, c - 1 if c > 0 else columns - 1]
            e = words[r, c + 1 if c + 1 < columns else 0]
            odd_1, both_1, odd_2, both_2 = a ^ b, a & b, d ^ e, d & e
            odd = odd_1 ^ odd_2
            four = both_1 & both_2
            three = odd & (both_1 | both_2)
            neighbours = (
                ~(a | b | d | e),
                odd & ~three,
                ((odd_1 & odd_2) | both_1 | both_2) & ~odd & ~four,
                three,
                four,
            )
            up = words[r, c]
            for k in range(5):
                _count(planes[k], neighbours[k] & ~up)
                _count(planes[5 + k], neighbours[k] & up)
    for which in range(10):
        _totals(planes[which], counts[:, which])


@numba.njit(nogil=True, cache=True)
def simulate(
    words: np.ndarray,
    thresholds: np.ndarray,
    attempts: np.ndarray,
    seeds: np.ndarray,
    counts: np.ndarray,
    kept: np.ndarray,
) -> None:
    """Evolve whole lattices and record after each number of attempts.

    words (W, R, C) uint64, changed; attempts (W, T), between records; seeds (W, 4), changed;
    counts (W, 64, T, 2), written: up spins and misaligned bonds; kept (W, T, R, C) uint64,
    written, or (W, 0, R, C).
    """
    _, rows, columns = words.shape
    box = (0, 0, rows, columns)
    for word in range(len(words)):
        for index in range(attempts.shape[1]):
            attempt(words[word], box, thresholds, attempts[word, index], seeds[word])
            count_replicas(words[word], counts[word, :, index])
            if kept.shape[1] > 0:
                kept[word, index] = words[word]


@numba.njit(nogil=True, cache=True)
def count_replicas(words: np.ndarray, counts: np.ndarray) -> None:
    """Up spins and misaligned bonds of the 64 replicas: words (R, C), counts (64, 2), written."""
    rows, columns = words.shape
    planes = np.zeros((2, 64), dtype=np.uint64)  # plane k holds bit k of the 64 counts
    for r in range(rows):
        below = r + 1 if r + 1 < rows else 0
        for c in range(columns):
            right = c + 1 if c + 1 < columns else 0
            word = words[r, c]
            _count(planes[0], word)
            _count(planes[1], word ^ words[below, c])
            _count(planes[1], word ^ words[r, right])
    for which in range(2):
        _totals(planes[which], counts[:, which])


@numba.njit(nogil=True, cache=True)
def _count(planes: np.ndarray, word: np.uint64) -> None:
    """Add one to the count of each replica whose bit is set: ripple-carry over the planes."""
    k = 0
    while word != 0:
        carry = planes[k] & word
        planes[k] ^= word
        word = carry
        k += 1


@numba.njit(nogil=True, cache=True)
def _totals(planes: np.ndarray, totals: np.ndarray) -> None:
    """The 64 counts as numbers, (64,)."""
    for replica in range(64):
        total = 0
        for k in range(40):
            total += ((planes[k] >> np.uint64(replica)) & np.uint64(1)) << np.uint64(k)
        totals[replica] = total
