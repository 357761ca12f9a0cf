"""Kinetic Monte Carlo of vacancies on a BCC lattice: residence-time algorithm, eight hops each.

A state is flat, (n,) uint8: site 2 ((x ny + y) nz + z) + b is the corner (b = 0) or the centre
(b = 1) of the cubic cell (x, y, z); 0 is a vacancy, 1 to 3 are species. In voxels (half a lattice
parameter) its position is 2 (x, y, z) + (b, b, b), so a voxel is a site where its three coordinates
have the same parity, and the first neighbours are at (+-1, +-1, +-1).

The eight rates of a vacancy depend on the species in a window around it. They are computed anew
only for vacancies whose window changed, and chosen from a binary tree of sums.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numba
import numpy as np

# Order of the eight hops, in voxels; the opposite of hop d is 7 - d.
DIRECTIONS = np.array([(i, j, k) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
# Bonds between two species by type: NbNb NbMo NbTa MoMo MoTa TaTa; those of a vacancy are number 6.
BOND_TYPE = np.array([[6, 6, 6, 6], [6, 0, 1, 2], [6, 1, 3, 4], [6, 2, 4, 5]])
BOND_TYPES = 6
KEY_WORDS = 4  # of 64 bits, two bits a site; the last is 0 only where no window was met yet
KEY_SITES = 32 * KEY_WORDS - 1  # in the widest window that can be remembered
Barriers = Callable[[np.ndarray, tuple[np.ndarray, ...], np.ndarray], None]


class Lattice(NamedTuple):
    """What is fixed in space. shape: cells along each axis; box: first cell and cells of the part
    that evolves; home: the same of the part whose vacancies move (anywhere in the box); whole: the
    box is all of it; columns: what each voxel coordinate from -reach on adds to the flat index of a
    site, by axis."""

    shape: tuple[int, int, int]
    box: tuple[int, int, int, int, int, int]
    home: tuple[int, int, int, int, int, int]
    whole: bool
    reach: int
    columns: tuple[np.ndarray, np.ndarray, np.ndarray]


class Hops(NamedTuple):
    """What decides the rates k0 exp(-beta E). offsets (W, 3) uint32: the window, in voxels from its
    corner (unsigned, so that no index is tested for its sign), first DIRECTIONS, and with each its
    opposite; parameters: of the barrier model; keys (M, 4) and
    known_rates (M, 8): windows met before, M = 0 or a power of 2, keys 0 at first; window (W,),
    barriers (8,) and key (4,): scratch."""

    attempt_rate: float
    beta: float
    parameters: tuple[np.ndarray, ...]
    offsets: np.ndarray
    keys: np.ndarray
    known_rates: np.ndarray
    window: np.ndarray
    barriers: np.ndarray
    key: np.ndarray


class Vacancies(NamedTuple):
    """voxels (V, 3), sites (V,), rates (V, 8); crowded (V,): another vacancy is in the window;
    tree (2 P,): node i holds the sum of nodes 2 i and 2 i + 1, leaf P + v the rate of vacancy v;
    at (n,): which vacancy a site holds, to be believed only if ``sites`` agrees."""

    voxels: np.ndarray
    sites: np.ndarray
    rates: np.ndarray
    crowded: np.ndarray
    tree: np.ndarray
    at: np.ndarray


def lattice_of(
    shape: Sequence[int], box: Sequence[int], reach: int, home: Sequence[int] | None = None
) -> Lattice:
    """Index tables of a periodic lattice for windows of up to ``reach`` voxels.

    shape: cells along each axis; box: first cell and number of cells of the part that evolves;
    home: where the vacancies that move start, None: anywhere in the box.
    """
    nx, ny, nz = shape
    first_x, first_y, first_z, wide_x, wide_y, wide_z = box
    home_x, home_y, home_z, home_wide_x, home_wide_y, home_wide_z = box if home is None else home
    x, y, z = (np.arange(-reach, 2 * extent + reach) % (2 * extent) for extent in shape)
    # all coordinates of a site have the parity of z, which tells centre from corner
    columns = (2 * ny * nz * (x // 2), 2 * nz * (y // 2), 2 * (z // 2) + z % 2)
    return Lattice(
        (nx, ny, nz),
        (first_x, first_y, first_z, wide_x, wide_y, wide_z),
        (home_x, home_y, home_z, home_wide_x, home_wide_y, home_wide_z),
        (wide_x, wide_y, wide_z) == (nx, ny, nz),
        reach,
        columns,
    )


class LastHop(NamedTuple):
    """What a hop straight back restores: most hops are such where it is cold.

    of (2,): the vacancy that hopped last and its direction, -1 where nothing is to be restored;
    rates (8,), tally (7,): of that vacancy, and bonds by type, before it hopped."""

    of: np.ndarray
    rates: np.ndarray
    tally: np.ndarray


@numba.njit(nogil=True)
def _pack_and_hash(window: np.ndarray, key: np.ndarray) -> int:
    """Write the window as two bits a site, so that equal keys are equal windows; return a hash."""
    mixed = np.uint64(0)
    for w in range(KEY_WORDS):
        word = np.uint64(w == KEY_WORDS - 1)  # the last is never 0; fewer than 32 sites follow
        for o in range(32 * w, min(32 * w + 32, len(window))):
            word = (word << np.uint64(2)) | np.uint64(window[o])
        key[w] = word
        # multiply and shift (as in splitmix64), word after word
        mixed = (mixed ^ word) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return int(np.int64(mixed >> np.uint64(2)))


@numba.njit(nogil=True)
def _choose(vacancies: Vacancies, target: float) -> tuple[int, int]:
    """Vacancy and direction at which the running sum of all rates passes ``target``."""
    tree, leaves, node = vacancies.tree, len(vacancies.tree) // 2, 1
    while node < leaves:
        node *= 2
        # an empty right half never takes what rounding leaves over
        if target >= tree[node] and tree[node + 1] > 0:
            target -= tree[node]
            node += 1
    v = node - leaves
    chosen = -1
    for d in range(8):
        rate = vacancies.rates[v, d]
        if rate > 0:
            chosen = d
            if target < rate:
                break
            target -= rate
    return v, chosen


@numba.njit(nogil=True)
def _sum_up(tree: np.ndarray, v: int, total: float) -> None:
    """Set the rate of vacancy ``v``, and the sums above it."""
    node = len(tree) // 2 + v
    tree[node] = total
    while node > 1:
        node //= 2
        tree[node] = tree[2 * node] + tree[2 * node + 1]


@numba.njit(nogil=True)
def _site(lattice: Lattice, x: int, y: int, z: int) -> int:
    """Flat index of the site at a voxel, up to ``reach`` outside of the lattice."""
    r = lattice.reach
    return lattice.columns[0][x + r] + lattice.columns[1][y + r] + lattice.columns[2][z + r]


@numba.njit(nogil=True)
def _columns_around(
    lattice: Lattice, x: int, y: int, z: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The parts of ``columns`` that belong to the window around a voxel."""
    width = 2 * lattice.reach + 1
    return (
        lattice.columns[0][x : x + width],
        lattice.columns[1][y : y + width],
        lattice.columns[2][z : z + width],
    )


@numba.njit(nogil=True)
def _stays(lattice: Lattice, x: int, y: int, z: int, d: int) -> bool:
    """Whether hop ``d`` from a voxel ends inside the box."""
    box, shape = lattice.box, lattice.shape
    return (
        ((x + DIRECTIONS[d, 0]) // 2 - box[0]) % shape[0] < box[3]
        and ((y + DIRECTIONS[d, 1]) // 2 - box[1]) % shape[1] < box[4]
        and ((z + DIRECTIONS[d, 2]) // 2 - box[2]) % shape[2] < box[5]
    )


@numba.njit(nogil=True)
def _find_vacancies(species: np.ndarray, lattice: Lattice) -> Vacancies:
    """Vacancies of home in C order of cells, corner before centre; rates are still zero."""
    box, shape = lattice.home, lattice.shape
    sites = np.empty(2 * box[3] * box[4] * box[5], dtype=np.int64)
    count = 0
    for i in range(box[3]):
        x = (box[0] + i) % shape[0]
        for j in range(box[4]):
            y = (box[1] + j) % shape[1]
            for k in range(box[5]):
                z = (box[2] + k) % shape[2]
                for b in range(2):
                    site = 2 * ((x * shape[1] + y) * shape[2] + z) + b
                    if species[site] == 0:
                        sites[count] = site
                        count += 1
    sites = sites[:count].copy()
    voxels = np.empty((count, 3), dtype=np.int64)
    at = np.empty(len(species), dtype=np.int32)  # no need to fill it: see Vacancies
    leaves = 1
    while leaves < count:
        leaves *= 2
    for v in range(count):
        at[sites[v]] = v
        cell, b = sites[v] // 2, sites[v] % 2
        voxels[v, 0] = 2 * (cell // (shape[1] * shape[2])) + b
        voxels[v, 1] = 2 * (cell // shape[2] % shape[1]) + b
        voxels[v, 2] = 2 * (cell % shape[2]) + b
    crowded = np.zeros(count, dtype=np.bool_)
    return Vacancies(voxels, sites, np.zeros((count, 8)), crowded, np.zeros(2 * leaves), at)


@numba.njit(nogil=True, cache=True)
def count_bonds(species: np.ndarray, shape: tuple[int, int, int], tally: np.ndarray) -> None:
    """Bonds of each type in one periodic lattice (n,), counted from the corners; tally (7,)."""
    nx, ny, nz = shape
    tally[:] = 0
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                corner = species[2 * ((x * ny + y) * nz + z)]
                for i in (x, x - 1 if x > 0 else nx - 1):
                    for j in (y, y - 1 if y > 0 else ny - 1):
                        for k in (z, z - 1 if z > 0 else nz - 1):
                            centre = species[2 * ((i * ny + j) * nz + k) + 1]
                            tally[BOND_TYPE[corner, centre]] += 1


@numba.njit(nogil=True, cache=True)
def count_batch(
    states: np.ndarray, shape: tuple[int, int, int], bonds: np.ndarray, atoms: np.ndarray
) -> None:
    """Bonds (B, 6) by type and sites (B, 4) by species code of each replica, states (B, n)."""
    tally = np.empty(BOND_TYPES + 1, dtype=np.int64)
    for replica in range(len(states)):
        count_bonds(states[replica], shape, tally)
        bonds[replica] = tally[:BOND_TYPES]
        atoms[replica] = 0
        for kind in states[replica]:
            atoms[replica, kind] += 1


@numba.njit(nogil=True)
def network_barriers(
    window: np.ndarray, parameters: tuple[np.ndarray, ...], barriers: np.ndarray
) -> None:
    """Multilayer perceptron on the eight turned windows, batch norms folded in.

        h_0[d, s] = species[order[d, s]],  h_l = max(h_{l-1} W_l + b_l, 0),  E[d] = h_4[d] w + c

    All eight directions are taken together. order (8, W); W_1 (H, W), then (H, H), a row for each
    output; w (H,), c (1,); all but ``order`` float32.
    """
    order, w1, b1, w2, b2, w3, b3, w4, b4, weights, bias = parameters
    inputs = np.empty((8, len(window)), dtype=np.float32)
    for d in range(8):
        for s in range(len(window)):
            inputs[d, s] = window[order[d, s]]
    first, second = np.empty((8, len(b1)), np.float32), np.empty((8, len(b1)), np.float32)
    _dense_relu(inputs, w1, b1, first)
    _dense_relu(first, w2, b2, second)
    _dense_relu(second, w3, b3, first)
    _dense_relu(first, w4, b4, second)
    for d in range(8):
        energy = bias[0]
        for h in range(len(weights)):
            energy += second[d, h] * weights[h]
        barriers[d] = energy


# The order of a sum is left to the compiler, so that it is one of vectors.
@numba.njit(nogil=True, fastmath={"reassoc", "contract"})
def _dense_relu(x: np.ndarray, weights: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """One layer, x (8, K), weights (H, K), bias (H,) -> out (8, H): max(W x + b, 0)."""
    zero = np.float32(0)
    for h in range(len(weights)):
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = zero
        # eight sums in registers, for which each weight is read once: BLAS is slow on eight rows
        for k in range(x.shape[1]):
            weight = weights[h, k]
            s0 += weight * x[0, k]
            s1 += weight * x[1, k]
            s2 += weight * x[2, k]
            s3 += weight * x[3, k]
            s4 += weight * x[4, k]
            s5 += weight * x[5, k]
            s6 += weight * x[6, k]
            s7 += weight * x[7, k]
        out[0, h], out[1, h] = max(s0 + bias[h], zero), max(s1 + bias[h], zero)
        out[2, h], out[3, h] = max(s2 + bias[h], zero), max(s3 + bias[h], zero)
        out[4, h], out[5, h] = max(s4 + bias[h], zero), max(s5 + bias[h], zero)
        out[6, h], out[7, h] = max(s6 + bias[h], zero), max(s7 + bias[h], zero)


@numba.njit(nogil=True)
def linear_barriers(
    window: np.ndarray, parameters: tuple[np.ndarray, ...], barriers: np.ndarray
) -> None:
    """Barriers linear in what the sites of the window hold, apart for each hopping species.

    E[d] = table[0, 0, a, d] + sum_s table[1 + s, species[s], a, d],  a = species of target d - 1;
    table (1 + W, 4, 3, 8). Of its first row only the first entry is used.
    """
    table = parameters[0]
    a0, a1, a2, a3 = (
        _hopping(window, 0),
        _hopping(window, 1),
        _hopping(window, 2),
        _hopping(window, 3),
    )
    a4, a5, a6, a7 = (
        _hopping(window, 4),
        _hopping(window, 5),
        _hopping(window, 6),
        _hopping(window, 7),
    )
    row = table[0, 0]
    e0, e1, e2, e3 = row[a0, 0], row[a1, 1], row[a2, 2], row[a3, 3]
    e4, e5, e6, e7 = row[a4, 4], row[a5, 5], row[a6, 6], row[a7, 7]
    # eight sums in registers: twice as fast as an array of them
    for s in range(len(window)):
        row = table[1 + s, window[s]]
        e0 += row[a0, 0]
        e1 += row[a1, 1]
        e2 += row[a2, 2]
        e3 += row[a3, 3]
        e4 += row[a4, 4]
        e5 += row[a5, 5]
        e6 += row[a6, 6]
        e7 += row[a7, 7]
    barriers[0], barriers[1], barriers[2], barriers[3] = e0, e1, e2, e3
    barriers[4], barriers[5], barriers[6], barriers[7] = e4, e5, e6, e7


@numba.njit(nogil=True)
def _hopping(window: np.ndarray, d: int) -> int:
    """Row of a table by hopping species; a vacancy there counts as anything, it cannot hop."""
    kind = np.int64(window[d])
    return int(kind - 1) if kind > 0 else 0


def compiled(evaluate: Barriers) -> Callable[..., None]:
    """The event loop for one barrier model, compiled on first use.

    evaluate(window, parameters, barriers), compiled itself, writes the barriers of the eight hops
    (8,) in eV from the species (W,) at the offsets; what it writes for a hop onto another vacancy
    is ignored. The result is called as

        evolve_inplace(lattice, hops, states, stops, max_events, mean_waits, rng,
                       times, counts, kept, log)

    and evolves the vacancies that start in the lattice's home in each replica; all that is outside
    the box stays frozen, and a vacancy cannot leave it, but sees what is outside. Each segment ends
    exactly at its time of ``stops``, or after ``max_events`` hops, whichever comes first.

    states (B, n) uint8, changed; stops (T,) ascending; mean_waits: waits are their mean 1 / R.
    Written: times (B, T); counts (B, T, 6), bonds by type in the whole lattice, or (B, 0, 6): not
    counted; kept (B, T, n) or (B, 0, n); log (B, E, 2), the first E events as (vacancy, direction),
    vacancies numbered in C order of where they start, from the first cell of home on.
    Draws: wait (unless it is the mean), choice.
    """

    @numba.njit(nogil=True)
    def write_rates(hops: Hops, rates: np.ndarray) -> None:
        evaluate(hops.window, hops.parameters, hops.barriers)
        for d in range(8):
            rates[d] = hops.attempt_rate * math.exp(-hops.beta * hops.barriers[d])

    @numba.njit(nogil=True)
    def update_rates(
        v: int,
        species: np.ndarray,
        lattice: Lattice,
        hops: Hops,
        vacancies: Vacancies,
    ) -> None:
        """Gather the window of vacancy ``v``, and from it the rates and the sums above them."""
        x, y, z = vacancies.voxels[v]
        along_x, along_y, along_z = _columns_around(lattice, x, y, z)
        offsets = hops.offsets
        for o in range(len(offsets)):
            i, j, k = offsets[o, 0], offsets[o, 1], offsets[o, 2]  # unpacking a row takes longer
            hops.window[o] = species[along_x[i] + along_y[j] + along_z[k]]
        others = 0
        for kind in hops.window:
            others += kind == 0
        vacancies.crowded[v] = others > 0
        rates = vacancies.rates[v]
        if len(hops.keys) == 0:
            write_rates(hops, rates)
        else:
            slot = _pack_and_hash(hops.window, hops.key) & (len(hops.keys) - 1)
            known = True
            for word in range(KEY_WORDS):
                known &= hops.keys[slot, word] == hops.key[word]
            if not known:
                hops.keys[slot] = hops.key
                write_rates(hops, hops.known_rates[slot])
            for d in range(8):
                rates[d] = hops.known_rates[slot, d]
        total = 0.0
        for d in range(8):
            if hops.window[d] == 0 or not (lattice.whole or _stays(lattice, x, y, z, d)):
                rates[d] = 0.0
            total += rates[d]
        _sum_up(vacancies.tree, v, total)

    @numba.njit(nogil=True)
    def update_others(
        x: int,
        y: int,
        z: int,
        event: int,
        species: np.ndarray,
        lattice: Lattice,
        hops: Hops,
        vacancies: Vacancies,
        updated: np.ndarray,
    ) -> None:
        """Rates of the vacancies in the window around a voxel, once an event."""
        along_x, along_y, along_z = _columns_around(lattice, x, y, z)
        for o in range(len(hops.offsets)):
            i, j, k = hops.offsets[o]
            site = along_x[i] + along_y[j] + along_z[k]
            if species[site] == 0:
                u = vacancies.at[site]
                active = 0 <= u < len(vacancies.sites) and vacancies.sites[u] == site
                if active and updated[u] != event:
                    updated[u] = event
                    update_rates(u, species, lattice, hops, vacancies)

    @numba.njit(nogil=True)
    def hop(
        v: int,
        direction: int,
        event: int,
        species: np.ndarray,
        lattice: Lattice,
        hops: Hops,
        vacancies: Vacancies,
        updated: np.ndarray,
        tally: np.ndarray,
        last: LastHop,
    ) -> None:
        """Swap vacancy and atom, and bring bonds and rates up to date."""
        x, y, z = vacancies.voxels[v]
        old, crowded = vacancies.sites[v], vacancies.crowded[v]
        for axis in range(3):
            extent = 2 * lattice.shape[axis]
            moved = vacancies.voxels[v, axis] + DIRECTIONS[direction, axis]
            vacancies.voxels[v, axis] = (moved + extent) % extent
        new_x, new_y, new_z = vacancies.voxels[v]
        new = _site(lattice, new_x, new_y, new_z)
        atom = species[new]
        species[old], species[new] = atom, 0
        vacancies.sites[v] = new
        vacancies.at[new] = v
        updated[v] = event
        back = last.of[0] == v and last.of[1] == 7 - direction
        last.of[0], last.of[1] = v, direction
        rates = vacancies.rates
        if back:  # trade what is for what was
            total = 0.0
            for d in range(8):
                rates[v, d], last.rates[d] = last.rates[d], rates[v, d]
                total += rates[v, d]
            for kind in range(len(tally)):
                tally[kind], last.tally[kind] = last.tally[kind], tally[kind]
            _sum_up(vacancies.tree, v, total)
            return
        for d in range(8):
            last.rates[d] = rates[v, d]
        for kind in range(len(tally)):
            last.tally[kind] = tally[kind]
        update_rates(v, species, lattice, hops, vacancies)
        # the atom leaves the bonds of its old site (whose window is at hand) and enters others
        for d in range(8):
            if d != 7 - direction:
                tally[BOND_TYPE[atom, hops.window[d]]] -= 1
            neighbour = _site(
                lattice, x + DIRECTIONS[d, 0], y + DIRECTIONS[d, 1], z + DIRECTIONS[d, 2]
            )
            tally[BOND_TYPE[atom, species[neighbour]]] += 1
        # windows are symmetric: whoever sees the old or the new site is seen from there
        if crowded or vacancies.crowded[v]:
            last.of[0] = -1  # others change, too
        if crowded:
            update_others(x, y, z, event, species, lattice, hops, vacancies, updated)
        if vacancies.crowded[v]:
            update_others(new_x, new_y, new_z, event, species, lattice, hops, vacancies, updated)

    @numba.njit(nogil=True)
    def evolve_inplace(
        lattice: Lattice,
        hops: Hops,
        states: np.ndarray,
        stops: np.ndarray,
        max_events: int,
        mean_waits: bool,
        rng: np.random.Generator,
        times: np.ndarray,
        counts: np.ndarray,
        kept: np.ndarray,
        log: np.ndarray,
    ) -> None:
        tally = np.zeros(BOND_TYPES + 1, dtype=np.int64)
        last = LastHop(np.empty(2, dtype=np.int64), np.empty(8), np.empty_like(tally))
        for replica in range(len(states)):
            species = states[replica]
            last.of[:] = -1
            if counts.shape[1] > 0:
                count_bonds(species, lattice.shape, tally)
            vacancies = _find_vacancies(species, lattice)
            for v in range(len(vacancies.sites)):
                update_rates(v, species, lattice, hops, vacancies)
            updated = np.zeros(len(vacancies.sites), dtype=np.int64)  # in which event, for each
            time, event = 0.0, 0
            for segment in range(len(stops)):
                events_left = max_events
                while events_left > 0:
                    total = vacancies.tree[1]
                    wait = math.inf  # no hop is possible, or every rate underflows
                    if total > 0:
                        wait = 1 / total if mean_waits else -math.log(1.0 - rng.random()) / total
                    if time + wait >= stops[segment]:  # also where both are infinite
                        time = stops[segment]
                        break
                    time += wait
                    v, direction = _choose(vacancies, rng.random() * total)
                    if event < log.shape[1]:
                        log[replica, event, 0] = v
                        log[replica, event, 1] = direction
                    event += 1
                    events_left -= 1
                    hop(
                        v, direction, event, species, lattice, hops, vacancies, updated, tally, last
                    )
                times[replica, segment] = time
                if counts.shape[1] > 0:
                    counts[replica, segment] = tally[:BOND_TYPES]
                if kept.shape[1] > 0:
                    kept[replica, segment] = species

    return evolve_inplace


_network, _linear = compiled(network_barriers), compiled(linear_barriers)


# Of our own models the compiled code is kept between processes.
@numba.njit(nogil=True, cache=True)
def evolve_network(  # type: ignore[no-untyped-def]
    lattice, hops, states, stops, max_events, mean_waits, rng, times, counts, kept, log
):
    """The event loop with ``network_barriers``."""
    _network(lattice, hops, states, stops, max_events, mean_waits, rng, times, counts, kept, log)


@numba.njit(nogil=True, cache=True)
def evolve_linear(  # type: ignore[no-untyped-def]
    lattice, hops, states, stops, max_events, mean_waits, rng, times, counts, kept, log
):
    """The event loop with ``linear_barriers``."""
    _linear(lattice, hops, states, stops, max_events, mean_waits, rng, times, counts, kept, log)


@numba.njit(nogil=True)
def _with_neighbours(lattice: Lattice, offsets: np.ndarray) -> np.ndarray:
    """Flat indices of each site of the box and of all that interact with it, (n, 1 + M)."""
    box = lattice.box
    around = np.empty((2 * box[3] * box[4] * box[5], 1 + len(offsets)), dtype=np.uint32)
    for number in range(len(around)):
        cell, b = number // 2, number % 2
        x, y, z = cell // (box[4] * box[5]), cell // box[5] % box[4], cell % box[5]
        x = 2 * ((box[0] + x) % lattice.shape[0]) + b
        y = 2 * ((box[1] + y) % lattice.shape[1]) + b
        z = 2 * ((box[2] + z) % lattice.shape[2]) + b
        around[number, 0] = _site(lattice, x, y, z)
        for o in range(len(offsets)):
            dx, dy, dz = offsets[o]
            around[number, 1 + o] = _site(lattice, x + dx, y + dy, z + dz)
    return around


@numba.njit(nogil=True, cache=True)
def exchange_inplace(
    lattice: Lattice,
    offsets: np.ndarray,
    shells: np.ndarray,
    energies: np.ndarray,
    beta: float,
    attempts: int,
    states: np.ndarray,
    rng: np.random.Generator,
    counts: np.ndarray,
) -> None:
    """Metropolis exchanges of two sites of the box, near or far: H = sum over pairs of energies.

    Both sites are drawn uniformly; accepted with probability min(1, exp(-beta dH)).

    offsets (M, 3) in voxels, all neighbours that interact; shells (M,): the shell of each;
    energies (S, 4, 4), symmetric, eV; attempts: between records; states (B, n) uint8, changed;
    counts (B, T, 6), written: bonds by type after each ``attempts`` exchanges; (B, 0, 6): so many
    exchanges once, and nothing is counted.
    Draws: first site, second site, acceptance (only where the energy rises).
    """
    around = _with_neighbours(lattice, offsets)
    n_sites, n_neighbours = len(around), len(offsets)
    # of a pair by shell and species of the other, (4 S,), when one kind becomes another; indices
    # are unsigned, so that none is tested for its sign
    differences = np.empty((4, 4, 4 * len(energies)))
    for old in range(4):
        for new in range(4):
            differences[old, new] = (energies[:, :, new] - energies[:, :, old]).ravel()
    rows = (4 * shells).astype(np.uint32)
    tally = np.empty(BOND_TYPES + 1, dtype=np.int64)
    for replica in range(len(states)):
        species = states[replica]
        for record in range(max(counts.shape[1], 1)):
            for _ in range(attempts):
                first = around[int(rng.random() * n_sites)]
                second = around[int(rng.random() * n_sites)]
                a, b = species[first[0]], species[second[0]]
                if a == b:
                    continue
                to_b, to_a = differences[a, b], differences[b, a]
                from_first, from_second = 0.0, 0.0
                for o in range(n_neighbours):
                    site, other = first[o + 1], second[o + 1]
                    if site != second[0]:  # the bond between the two stays what it is
                        from_first += to_b[rows[o] + species[site]]
                    if other != first[0]:
                        from_second += to_a[rows[o] + species[other]]
                change = from_first + from_second
                if change <= 0 or rng.random() < math.exp(-beta * change):
                    species[first[0]], species[second[0]] = b, a
            if counts.shape[1] > 0:
                count_bonds(species, lattice.shape, tally)
                counts[replica, record] = tally[:BOND_TYPES]
