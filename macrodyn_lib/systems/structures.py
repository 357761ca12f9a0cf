"""Alloy configurations as files: extended XYZ (ASE, OVITO) and LAMMPS text dumps.

A vacancy is a row of element X (XYZ) or type 0 (dump), so that every site keeps its row.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from macrodyn_lib.systems.barriers import SPECIES

LATTICE_PARAMETER = 3.24  # Angstrom
TOLERANCE = 0.1  # Angstrom, of the lattice parameter of a file; Mo has 3.15, Nb and Ta have 3.30
ELEMENTS = np.array(["X", *SPECIES])
COLUMNS = "species:S:1:pos:R:3"


def site_positions(cells: int) -> np.ndarray:
    """Positions of the sites of a state in C order, (2 cells^3, 3), Angstrom."""
    x, y, z, b = np.indices((cells, cells, cells, 2)).reshape(4, -1)
    return np.asarray(LATTICE_PARAMETER * (np.column_stack([x, y, z]) + b[:, None] / 2))


def write_extended_xyz(path: Path, states: np.ndarray, times: np.ndarray | None = None) -> None:
    """Write states (T, L, L, L, 2), one frame each, with their times (T,) in s if given.

    Raises: ValueError: states or times are not of these shapes, or states are no species codes.
    """
    cells = _cells_of(states)
    if times is not None and len(times) != len(states):
        raise ValueError(f"times has {len(times)} entries: must be {len(states)}, one a frame")
    edge = cells * LATTICE_PARAMETER
    where = [f"{x:.4f} {y:.4f} {z:.4f}" for x, y, z in site_positions(cells)]

    def write(file: IO[str]) -> None:
        for frame, state in enumerate(states):
            time = "" if times is None else f" time={float(times[frame])!r}"
            file.write(
                f'{state.size}\nLattice="{edge:.4f} 0 0 0 {edge:.4f} 0 0 0 {edge:.4f}" '
                f'Properties={COLUMNS}{time} pbc="T T T"\n'
            )
            names = ELEMENTS[state.ravel()]
            file.writelines(f"{a} {p}\n" for a, p in zip(names, where, strict=True))

    _write_whole(path, write)


def read_extended_xyz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The states (T, L, L, L, 2) and times (T,), or None, of a file of ``write_extended_xyz``.

    Rows may come in any order; sites without a row are vacancies.

    Raises: ValueError: a frame is damaged, or its atoms are not on this lattice.
    """
    states, times = _frames(path, _xyz_frame)
    return states, None if None in times else np.array(times)


def _xyz_frame(line: str, file: IO[str]) -> tuple[np.ndarray, float | None]:
    count, header = _count(line), file.readline()
    columns = re.search(r'\bProperties="?([^\s"]*)', header)
    if columns and columns[1] != COLUMNS:
        raise ValueError(f"Properties={columns[1]}: must be {COLUMNS}")
    box = re.search(r'\bLattice="([^"]*)"', header)
    edges = _numbers("Lattice", box[1].split() if box else [])
    if edges.shape != (9,) or np.count_nonzero(edges) != 3 or len(set(edges[::4])) != 1:
        raise ValueError(f"Lattice = {edges.tolist()}: must be cubic, along the axes")
    rows = _rows(file, count, 4)
    unknown = set(rows[:, 0].tolist()) - set(ELEMENTS.tolist())
    if unknown:
        raise ValueError(f"elements {sorted(unknown)}: must be {ELEMENTS.tolist()}")
    order = np.argsort(ELEMENTS)
    codes = order[np.searchsorted(ELEMENTS, rows[:, 0], sorter=order)]
    time = re.search(r"\btime=(\S+)", header)
    return (
        _placed(_numbers("positions", rows[:, 1:]), codes, edges[0]),
        float(_numbers("time", time[1])) if time else None,
    )


def write_lammps_dump(path: Path, states: np.ndarray, steps: np.ndarray | None = None) -> None:
    """Write states (T, L, L, L, 2), one frame each; steps (T,): None: 0, 1, ...

    Raises: ValueError: states or steps are not of these shapes, or states are no species codes.
    """
    cells = _cells_of(states)
    steps = np.arange(len(states)) if steps is None else np.asarray(steps)
    if len(steps) != len(states):
        raise ValueError(f"steps has {len(steps)} entries: must be {len(states)}, one a frame")
    edge = cells * LATTICE_PARAMETER
    where = [f"{x:.4f} {y:.4f} {z:.4f}" for x, y, z in site_positions(cells)]

    def write(file: IO[str]) -> None:
        for step, state in zip(steps, states, strict=True):
            file.write(
                f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{state.size}\n"
                f"ITEM: BOX BOUNDS pp pp pp\n"
                + 3 * f"0 {edge:.4f}\n"
                + "ITEM: ATOMS id type x y z\n"
            )
            codes = enumerate(zip(state.ravel(), where, strict=True), 1)
            file.writelines(f"{row} {code} {place}\n" for row, (code, place) in codes)

    _write_whole(path, write)


def read_lammps_dump(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The states (T, L, L, L, 2) and steps (T,) of a text dump with columns id type x y z.

    Types are 1 Nb, 2 Mo, 3 Ta, and 0 for a vacancy; sites without a row are vacancies.

    Raises: ValueError: a frame is damaged, or its atoms are not on this lattice.
    """
    states, steps = _frames(path, _dump_frame)
    return states, np.array(steps)


def _dump_frame(line: str, file: IO[str]) -> tuple[np.ndarray, int]:
    head = [line, *(file.readline() for _ in range(8))]
    titles = [head[i].strip() for i in (0, 2, 4, 8)]
    if [title.split("pp")[0].strip() for title in titles] != [
        "ITEM: TIMESTEP", "ITEM: NUMBER OF ATOMS", "ITEM: BOX BOUNDS", "ITEM: ATOMS id type x y z",
    ]:  # fmt: skip
        raise ValueError(f"is no dump of id type x y z: {titles}")
    bounds = _numbers("BOX BOUNDS", [row.split() for row in head[5:8]])
    if bounds.shape != (3, 2) or not np.allclose(np.diff(bounds), bounds[0, 1] - bounds[0, 0]):
        raise ValueError(f"BOX BOUNDS = {bounds.tolist()}: must be a cube")
    rows = _numbers("ATOMS", _rows(file, _count(head[3]), 5))
    if not np.isin(rows[:, 1], np.arange(4)).all():
        raise ValueError(f"types {np.unique(rows[:, 1])}: must be 0 to 3")
    edge = float(bounds[0, 1] - bounds[0, 0])
    state = _placed(rows[:, 2:] - bounds[:, 0], rows[:, 1].astype(np.uint8), edge)
    return state, int(_numbers("TIMESTEP", head[1].strip()))


def _frames(
    path: Path, read: Callable[[str, IO[str]], tuple[np.ndarray, Any]]
) -> tuple[np.ndarray, list[Any]]:
    """What ``read`` makes of each frame, given its first line: states, and when each was.

    Raises: ValueError: what ``read`` raises, with the file and the number of the frame, from 0 on.
    """
    states: list[np.ndarray] = []
    labels: list[Any] = []
    with path.open() as file:
        try:
            while line := file.readline():
                state, label = read(line, file)
                if states and state.shape != states[0].shape:
                    raise ValueError(f"{len(state)} cells: must be {len(states[0])} as in frame 0")
                states.append(state)
                labels.append(label)
        except ValueError as error:
            raise ValueError(f"{path}: frame {len(states)}: {error}") from error
    if not states:
        raise ValueError(f"{path}: has no frame")
    return np.stack(states), labels


def _cells_of(states: np.ndarray) -> int:
    if states.ndim != 5 or states.shape[4] != 2 or len(set(states.shape[1:4])) != 1:
        raise ValueError(f"states has shape {states.shape}: must be (T, L, L, L, 2)")
    if not np.issubdtype(states.dtype, np.integer) or ((states < 0) | (states > 3)).any():
        raise ValueError(
            f"states has dtype {states.dtype} and values {np.unique(states)}: must be 0 to 3"
        )
    return int(states.shape[1])


def _count(line: str) -> int:
    if not line.strip().isdigit() or int(line) == 0:
        raise ValueError(f"{line.strip()!r}: must be a number of atoms, at least 1")
    return int(line)


def _rows(file: Iterator[str], count: int, columns: int) -> np.ndarray:
    rows = [line.split() for _, line in zip(range(count), file, strict=False)]
    if len(rows) < count or any(len(row) != columns for row in rows):
        raise ValueError(f"has not {count} rows of {columns} columns")
    return np.array(rows)


def _numbers(what: str, words: Any) -> np.ndarray:
    """``words``, nested as they are, as finite numbers."""
    try:
        numbers = np.array(words, dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{what}: must be numbers ({error})") from error
    if not np.isfinite(numbers).all():
        raise ValueError(f"{what}: must be finite, not {numbers[~np.isfinite(numbers)][0]}")
    return numbers


def _placed(positions: np.ndarray, codes: np.ndarray, edge: float) -> np.ndarray:
    """The state with species ``codes`` (N,) at ``positions`` (N, 3)."""
    cells = round(edge / LATTICE_PARAMETER)
    if cells < 1 or abs(edge / cells - LATTICE_PARAMETER) > TOLERANCE:
        raise ValueError(
            f"edge = {edge:g} Angstrom: must be a multiple of the lattice parameter, "
            f"{LATTICE_PARAMETER} within {TOLERANCE}"
        )
    halves = positions % edge * (2 * cells / edge)
    voxels = np.rint(halves).astype(np.int64)
    on_site = np.abs(halves - voxels).max(axis=1) < 0.1
    if not (on_site & (np.ptp(voxels % 2, axis=1) == 0)).all():
        raise ValueError(f"positions are not on a BCC lattice of {cells} cells")
    x, y, z = (voxels % (2 * cells)).T
    sites = np.ravel_multi_index((x // 2, y // 2, z // 2, x % 2), (cells, cells, cells, 2))
    if len(np.unique(sites)) < len(sites):
        raise ValueError("two atoms are on one site")
    state = np.zeros(2 * cells**3, dtype=np.uint8)
    state[sites] = codes
    return state.reshape(cells, cells, cells, 2)


def _write_whole(path: Path, write: Callable[[IO[str]], None]) -> None:
    """Write to a temporary name, then rename: nothing half-written is left under ``path``."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w") as file:
            write(file)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
