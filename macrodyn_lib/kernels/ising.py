"""The n-fold way: rejection-free kinetic Monte Carlo of Ising spins on a square lattice.

A flip rate depends on the spin and on how many of its 4 neighbours are up, so there are ten rates:
class = 5 [spin is up] + (neighbours up). Each class keeps a list of its sites; a flip moves the
site and its neighbours between lists by swap-remove, so an event costs the same on any lattice.
"""

import math

import numba
import numpy as np

CLASSES = 10


@numba.njit(nogil=True, cache=True)
def evolve_box_inplace(
    states: np.ndarray,
    box: tuple[int, int, int, int],
    wrapped: bool,
    rates: np.ndarray,
    duration: float,
    max_events: int,
    rng: np.random.Generator,
    elapsed: np.ndarray,
    occupation: np.ndarray,
) -> None:
    """Evolve the spins of one box of each replica; all others stay frozen.

    Stops exactly at ``duration``, or with ``max_events`` flips, whichever comes first.

    states (B, R, C) int8, changed; box: first row, first column, height, width (wraps around);
    wrapped: the box's edges see its own opposite edges instead of the lattice;
    rates (10,) by class; elapsed (B,), written: the physical time that passed; occupation (B, 10),
    written, or (0, 10): how many sites each class had, integrated over that time.
    """
    n_sites = box[2] * box[3]
    integral = np.zeros(CLASSES if len(occupation) > 0 else 0)
    site_class, position, members, sizes = _empty_lists(n_sites)
    change = np.empty(2, dtype=np.int64)
    for replica in range(len(states)):
        spins = states[replica]
        _sort_sites(spins, box, wrapped, site_class, position, members, sizes)
        elapsed[replica] = _run(
            (box[2], box[3]),
            (wrapped or box[2] == spins.shape[0], wrapped or box[3] == spins.shape[1]),
            site_class, position, members, sizes, rates, duration, max_events, rng, change,
            integral,
        )  # fmt: skip
        if len(occupation) > 0:
            occupation[replica] = integral
            integral[:] = 0.0
        _write_spins(spins, box, site_class)


@numba.njit(nogil=True, cache=True)
def simulate(
    states: np.ndarray,
    rates: np.ndarray,
    times: np.ndarray,
    rng: np.random.Generator,
    counts: np.ndarray,
    kept: np.ndarray,
) -> None:
    """Evolve whole periodic lattices and record at ``times``, each reached exactly.

    states (B, R, C) int8, not changed; times (T,) ascending; counts (B, T, 2), written: up spins
    and misaligned bonds, tracked flip by flip; kept (B, T, R, C) int8, written, or (B, 0, R, C).
    """
    _, rows, columns = states.shape
    box = (0, 0, rows, columns)
    site_class, position, members, sizes = _empty_lists(rows * columns)
    current, unused = np.empty(2, dtype=np.int64), np.empty(0)
    for replica in range(len(states)):
        current[:] = count_up_and_misaligned(states[replica])
        _sort_sites(states[replica], box, False, site_class, position, members, sizes)
        time = 0.0
        for index in range(len(times)):
            if times[index] > time:
                _run(
                    (rows, columns), (True, True), site_class, position, members, sizes, rates,
                    times[index] - time, np.iinfo(np.int64).max, rng, current, unused,
                )  # fmt: skip
            time = times[index]
            counts[replica, index] = current
            if kept.shape[1] > 0:
                _write_spins(kept[replica, index], box, site_class)


@numba.njit(nogil=True, cache=True)
def _empty_lists(n_sites: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Class and list position of each site, the lists themselves, and their lengths."""
    return (
        np.empty(n_sites, dtype=np.uint8),
        np.empty(n_sites, dtype=np.int32),
        np.empty((CLASSES, n_sites), dtype=np.int32),
        np.empty(CLASSES, dtype=np.int64),
    )


@numba.njit(nogil=True, cache=True)
def _wrap(index: int, extent: int) -> int:
    """Into 0 ... extent - 1 for indices that are at most one period outside; no division."""
    if index < 0:
        return index + extent
    return index - extent if index >= extent else index


@numba.njit(nogil=True, cache=True)
def _sort_sites(
    spins: np.ndarray,
    box: tuple[int, int, int, int],
    wrapped: bool,
    site_class: np.ndarray,
    position: np.ndarray,
    members: np.ndarray,
    sizes: np.ndarray,
) -> None:
    """Fill the class lists from the spins of the box and of its surroundings."""
    rows, columns = spins.shape
    first_row, first_column, height, width = box
    sizes[:] = 0
    for r in range(height):
        row = _wrap(first_row + r, rows)
        if wrapped:
            above = _wrap(first_row + _wrap(r - 1, height), rows)
            below = _wrap(first_row + _wrap(r + 1, height), rows)
        else:
            above, below = _wrap(row - 1, rows), _wrap(row + 1, rows)
        for c in range(width):
            column = _wrap(first_column + c, columns)
            if wrapped:
                left = _wrap(first_column + _wrap(c - 1, width), columns)
                right = _wrap(first_column + _wrap(c + 1, width), columns)
            else:
                left, right = _wrap(column - 1, columns), _wrap(column + 1, columns)
            total = (
                spins[above, column] + spins[below, column] + spins[row, left] + spins[row, right]
            )
            kind = 5 * (spins[row, column] > 0) + (total + 4) // 2
            site = r * width + c
            site_class[site] = kind
            position[site] = sizes[kind]
            members[kind, sizes[kind]] = site
            sizes[kind] += 1


@numba.njit(nogil=True, cache=True)
def _move(
    site: int,
    change: int,
    site_class: np.ndarray,
    position: np.ndarray,
    members: np.ndarray,
    sizes: np.ndarray,
) -> None:
    """Move a site to another class: the last of its old list takes its place there."""
    old = site_class[site]
    new = old + change
    sizes[old] -= 1
    last = members[old, sizes[old]]
    members[old, position[site]] = last
    position[last] = position[site]
    site_class[site] = new
    position[site] = sizes[new]
    members[new, sizes[new]] = site
    sizes[new] += 1


@numba.njit(nogil=True, cache=True)
def _run(
    shape: tuple[int, int],
    closed: tuple[bool, bool],
    site_class: np.ndarray,
    position: np.ndarray,
    members: np.ndarray,
    sizes: np.ndarray,
    rates: np.ndarray,
    duration: float,
    max_events: int,
    rng: np.random.Generator,
    counts: np.ndarray,
    integral: np.ndarray,
) -> float:
    """Run the event loop on sorted sites; add the changes to (up spins, misaligned bonds).

    closed: along this axis the box is a ring; otherwise neighbours beyond its edge are frozen.
    integral (10,): the time integral of ``sizes`` is added to it; (0,): it is not wanted.
    """
    height, width = shape
    time, events = 0.0, 0
    while events < max_events:
        rate = 0.0
        for kind in range(CLASSES):
            rate += sizes[kind] * rates[kind]
        # at very low temperature every rate may underflow: then nothing ever happens
        waiting_time = -math.log(1.0 - rng.random()) / rate if rate > 0 else math.inf
        if len(integral) > 0:
            dwell = min(waiting_time, duration - time)
            for kind in range(CLASSES):
                integral[kind] += sizes[kind] * dwell
        if time + waiting_time >= duration:  # also where both are infinite
            return duration
        time += waiting_time
        events += 1
        target = rng.random() * rate
        chosen = -1
        for kind in range(CLASSES):
            share = sizes[kind] * rates[kind]
            if share > 0:
                chosen = kind  # the last class with any weight takes what rounding leaves over
                if target < share:
                    break
                target -= share
        site = members[chosen, int(rng.random() * sizes[chosen])]
        neighbours_up = chosen % 5
        if chosen >= 5:
            step = -1
            counts[1] += 2 * neighbours_up - 4
        else:
            step = 1
            counts[1] += 4 - 2 * neighbours_up
        counts[0] += step
        _move(site, 5 * step, site_class, position, members, sizes)
        row = site // width
        column = site - row * width
        if row > 0:
            _move(site - width, step, site_class, position, members, sizes)
        elif closed[0]:
            _move(site + (height - 1) * width, step, site_class, position, members, sizes)
        if row < height - 1:
            _move(site + width, step, site_class, position, members, sizes)
        elif closed[0]:
            _move(site - (height - 1) * width, step, site_class, position, members, sizes)
        if column > 0:
            _move(site - 1, step, site_class, position, members, sizes)
        elif closed[1]:
            _move(site + width - 1, step, site_class, position, members, sizes)
        if column < width - 1:
            _move(site + 1, step, site_class, position, members, sizes)
        elif closed[1]:
            _move(site - width + 1, step, site_class, position, members, sizes)
    return time


@numba.njit(nogil=True, cache=True)
def _write_spins(spins: np.ndarray, box: tuple[int, int, int, int], site_class: np.ndarray) -> None:
    rows, columns = spins.shape
    for r in range(box[2]):
        row = _wrap(box[0] + r, rows)
        for c in range(box[3]):
            up = site_class[r * box[3] + c] >= 5
            spins[row, _wrap(box[1] + c, columns)] = 1 if up else -1


@numba.njit(nogil=True, cache=True)
def count_up_and_misaligned(spins: np.ndarray) -> tuple[int, int]:
    """Up spins and misaligned bonds (right and down of each site, periodic) of one lattice."""
    rows, columns = spins.shape
    total, aligned = 0, 0
    for r in range(rows):
        below = r + 1 if r + 1 < rows else 0
        for c in range(columns - 1):
            spin = int(spins[r, c])
            total += spin
            aligned += spin * (spins[below, c] + spins[r, c + 1])
        spin = int(spins[r, columns - 1])
        total += spin
        aligned += spin * (spins[below, columns - 1] + spins[r, 0])
    n_sites = rows * columns
    return (n_sites + total) // 2, (2 * n_sites - aligned) // 2


@numba.njit(nogil=True, cache=True)
def count_batch(states: np.ndarray, counts: np.ndarray) -> None:
    """Up spins and misaligned bonds of each replica: states (B, R, C), counts (B, 2), written."""
    for replica in range(len(states)):
        counts[replica] = count_up_and_misaligned(states[replica])


@numba.njit(nogil=True, cache=True)
def count_classes(states: np.ndarray, counts: np.ndarray) -> None:
    """Sites of each rate class on periodic lattices: states (B, R, C), counts (B, 10), written."""
    _, rows, columns = states.shape
    counts[:] = 0
    for replica in range(len(states)):
        spins = states[replica]
        for r in range(rows):
            above, below = (r if r > 0 else rows) - 1, (r + 1 if r + 1 < rows else 0)
            for c in range(columns):
                left, right = (c if c > 0 else columns) - 1, (c + 1 if c + 1 < columns else 0)
                total = spins[above, c] + spins[below, c] + spins[r, left] + spins[r, right]
                counts[replica, 5 * (spins[r, c] > 0) + (total + 4) // 2] += 1


@numba.njit(nogil=True, cache=True)
def flip_wolff_clusters(
    spins: np.ndarray, bond_probability: float, clusters: int, rng: np.random.Generator
) -> None:
    """Grow and flip single clusters at zero field (Wolff 1989): spins (R, C) int8, changed."""
    rows, columns = spins.shape
    stack = np.empty(rows * columns, dtype=np.int32)
    for _ in range(clusters):
        first = int(rng.random() * rows * columns)
        kind = spins[first // columns, first % columns]
        spins[first // columns, first % columns] = -kind
        stack[0] = first
        height = 1
        while height > 0:
            height -= 1
            r, c = stack[height] // columns, stack[height] % columns
            for direction in range(4):
                row, column = r, c
                if direction == 0:
                    row = r - 1 if r > 0 else rows - 1
                elif direction == 1:
                    row = r + 1 if r + 1 < rows else 0
                elif direction == 2:
                    column = c - 1 if c > 0 else columns - 1
                else:
                    column = c + 1 if c + 1 < columns else 0
                if spins[row, column] == kind and rng.random() < bond_probability:
                    spins[row, column] = -kind
                    stack[height] = row * columns + column
                    height += 1
