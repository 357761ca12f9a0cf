"""Alloy files: round trips, other programs, and damage."""

import ase.io
import numpy as np
import pytest
from test_barriers import DATA, crowded_state

from macrodyn_lib.systems.structures import (
    read_extended_xyz,
    read_lammps_dump,
    site_positions,
    write_extended_xyz,
    write_lammps_dump,
)

STATES = np.stack([crowded_state(seed, cells=3, vacancies=5) for seed in range(3)])


@pytest.fixture(params=["xyz", "dump"])
def kind(request):
    return {
        "xyz": (write_extended_xyz, read_extended_xyz),
        "dump": (write_lammps_dump, read_lammps_dump),
    }[request.param]


def test_states_survive_a_round_trip(tmp_path, kind):
    write, read = kind
    write(tmp_path / "run", STATES)
    np.testing.assert_array_equal(read(tmp_path / "run")[0], STATES)
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]  # nothing temporary is left


def test_times_and_steps_survive_a_round_trip(tmp_path):
    times, steps = np.array([0.0, 1.5e-10, 1 / 3]), np.array([0, 1000, 2000])
    write_extended_xyz(tmp_path / "a", STATES, times)
    np.testing.assert_array_equal(read_extended_xyz(tmp_path / "a")[1], times)
    write_lammps_dump(tmp_path / "b", STATES, steps)
    np.testing.assert_array_equal(read_lammps_dump(tmp_path / "b")[1], steps)
    write_extended_xyz(tmp_path / "c", STATES)
    assert read_extended_xyz(tmp_path / "c")[1] is None


def test_ase_reads_a_trajectory_in_extended_xyz(tmp_path):
    """Species, positions, the periodic cell and the time of every frame."""
    write_extended_xyz(tmp_path / "run.xyz", STATES, np.array([0.0, 1e-9, 2e-9]))
    frames = ase.io.read(tmp_path / "run.xyz", index=":")
    assert len(frames) == 3
    for frame, state, time in zip(frames, STATES, (0.0, 1e-9, 2e-9), strict=True):
        names = np.array(["X", "Nb", "Mo", "Ta"])[state.ravel()]
        np.testing.assert_array_equal(frame.get_chemical_symbols(), names)
        np.testing.assert_allclose(frame.positions, site_positions(3), atol=1e-4)
        np.testing.assert_allclose(frame.cell.lengths(), 3 * 3.24)
        assert frame.pbc.all() and frame.info["time"] == time
    # first neighbours of a BCC lattice are at sqrt(3)/2 of its parameter
    nearest = np.sort(frames[0].get_distances(0, range(1, 54), mic=True))[:9]
    np.testing.assert_allclose(nearest[:8], 3.24 * np.sqrt(3) / 2, atol=1e-3)
    assert nearest[8] > 3.2


def test_ase_reads_a_lammps_dump(tmp_path):
    write_lammps_dump(tmp_path / "run.dump", STATES)
    frames = ase.io.read(tmp_path / "run.dump", index=":", format="lammps-dump-text")
    assert len(frames) == 3
    for frame, state in zip(frames, STATES, strict=True):
        np.testing.assert_array_equal(frame.numbers, state.ravel())  # types stand in for elements
        np.testing.assert_allclose(frame.positions, site_positions(3), atol=1e-4)


def test_what_ase_writes_is_read(tmp_path):
    """In another order of atoms, and without its vacancies."""
    write_extended_xyz(tmp_path / "run.xyz", STATES[:1])
    frame = ase.io.read(tmp_path / "run.xyz")
    shuffled = frame[np.random.default_rng(0).permutation(len(frame))]
    del shuffled[[atom.index for atom in shuffled if atom.symbol == "X"]]
    ase.io.write(tmp_path / "again.xyz", shuffled, format="extxyz")
    np.testing.assert_array_equal(read_extended_xyz(tmp_path / "again.xyz")[0], STATES[:1])


@pytest.mark.skipif(not (DATA / "initial_1024.dump").is_file(), reason="no published start")
def test_published_dump_has_the_published_row_order():
    """id = 1 + b + 2 (cx + 8 (cy + 8 cz)), types as they stand."""
    path = DATA / "initial_1024.dump"
    states, steps = read_lammps_dump(path)
    types = np.loadtxt(path, skiprows=9, usecols=1, dtype=int)
    rows = np.arange(1024)
    x, y, z, b = rows // 2 % 8, rows // 16 % 8, rows // 128, rows % 2
    np.testing.assert_array_equal(states[0, x, y, z, b], types)
    assert states.shape == (1, 8, 8, 8, 2) and steps.shape == (1,)


@pytest.mark.parametrize(
    ("find", "put", "message"),
    [
        ("X 0.0000", "Cu 0.0000", "Cu"),
        (" 1.6200 1.6200 1.6200", " 1.6200 1.6200 0.0000", "BCC"),
        (" 1.6200 1.6200 1.6200", " 0.0000 0.0000 0.0000", "two atoms"),
        (" 1.6200 1.6200 1.6200", " 1.6200 1.6200", "columns"),
        ('Lattice="9.7200', 'Lattice="9.8200', "cubic"),
        ("54\n", "55\n", "columns"),
        ("54\n", "many\n", "number of atoms"),
    ],
)
def test_damaged_xyz_is_refused(tmp_path, find, put, message):
    state = STATES[:1].copy()
    state[0, 0, 0, 0, 0] = 0
    write_extended_xyz(tmp_path / "run", state)
    text = (tmp_path / "run").read_text()
    assert find in text
    (tmp_path / "run").write_text(text.replace(find, put, 1))
    with pytest.raises(ValueError, match=message):
        read_extended_xyz(tmp_path / "run")


@pytest.mark.parametrize(
    ("find", "put", "message"),
    [
        ("id type x y z", "id type xs ys zs", "id type x y z"),
        ("1 0 0.0000", "1 7 0.0000", "types"),
        ("0 9.7200\n", "0 9.9000\n", "cube"),
        ("54\n", "60\n", "columns"),
    ],
)
def test_damaged_dump_is_refused(tmp_path, find, put, message):
    state = STATES[:1].copy()
    state[0, 0, 0, 0, 0] = 0
    write_lammps_dump(tmp_path / "run", state)
    text = (tmp_path / "run").read_text()
    assert find in text
    (tmp_path / "run").write_text(text.replace(find, put, 1))
    with pytest.raises(ValueError, match=message):
        read_lammps_dump(tmp_path / "run")


def test_empty_files_and_wrong_shapes_are_refused(tmp_path, kind):
    write, read = kind
    (tmp_path / "empty").write_text("")
    with pytest.raises(ValueError, match="no frame"):
        read(tmp_path / "empty")
    with pytest.raises(ValueError, match="shape"):
        write(tmp_path / "run", STATES[0])
    with pytest.raises(ValueError, match="one a frame"):
        write(tmp_path / "run", STATES, np.arange(2))
    assert not (tmp_path / "run").exists()
