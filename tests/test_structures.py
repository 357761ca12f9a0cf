"""Alloy files: round trips, other programs, and damage."""

import warnings

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

BOX = "9.7200 0 0 0 9.7200 0 0 0 9.7200"
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
        ("54\n", "many\n", "'many': must be a number of atoms"),
        ("54\n", "0\n", "'0': must be a number of atoms, at least 1"),
        (" 1.6200 1.6200 1.6200", " 1.6200 1.6200 up", "positions: must be numbers .*'up'"),
        (" 1.6200 1.6200 1.6200", " 1.6200 1.6200 nan", "positions: must be finite, not nan"),
        (" 1.6200 1.6200 1.6200", " 1.6200 1.6200 inf", "positions: must be finite, not inf"),
        (" 1.6200 1.6200 1.6200", " 1.6200 1.6200 1e300", "BCC"),
        ('Lattice="9.7200', 'Lattice="wide', "Lattice: must be numbers .*'wide'"),
        ('Lattice="9.7200', 'Latice="9.7200', r"Lattice = \[\]: must be cubic"),
        (
            BOX,
            BOX.replace("9.72", "3.9"),
            "edge = 3.9 Angstrom: must be a multiple of .* within 0.1",
        ),
        (BOX, BOX.replace("9.72", "0.1"), "edge = 0.1 Angstrom: must be a multiple"),
        (BOX, BOX.replace("9.72", "-9.72"), "edge = -9.72 Angstrom: must be a multiple"),
        ("pos:R:3", "pos:R:3:mass:R:1", "mass:R:1: must be species:S:1:pos:R:3"),
        ("pos:R:3", "pos:R:3 time=soon", "time: must be numbers .*'soon'"),
    ],
)
def test_damaged_xyz_is_refused(tmp_path, find, put, message):
    state = STATES[:1].copy()
    state[0, 0, 0, 0, 0] = 0
    write_extended_xyz(tmp_path / "run", state)
    assert_refused(tmp_path / "run", read_extended_xyz, find, put, message)


@pytest.mark.parametrize(
    ("find", "put", "message"),
    [
        ("id type x y z", "id type xs ys zs", "id type x y z"),
        ("1 0 0.0000", "1 7 0.0000", "types"),
        ("0 9.7200\n", "0 9.9000\n", "cube"),
        ("0 9.7200\n", "0\n", "BOX BOUNDS: must be numbers"),
        ("0 9.7200\n", "0 wide\n", "BOX BOUNDS: must be numbers .*'wide'"),
        (3 * "0 9.7200\n", 3 * "0 3.9000\n", "edge = 3.9 Angstrom: must be a multiple"),
        (3 * "0 9.7200\n", 3 * "5 5\n", "edge = 0 Angstrom: must be a multiple"),
        ("TIMESTEP\n0", "TIMESTEP\nlast", "TIMESTEP: must be numbers .*'last'"),
        ("54\n", "60\n", "columns"),
        ("54\n", "0\n", "'0': must be a number of atoms, at least 1"),
        (" 1.6200 1.6200 1.6200", " 1.6200 1.6200 nan", "ATOMS: must be finite, not nan"),
    ],
)
def test_damaged_dump_is_refused(tmp_path, find, put, message):
    state = STATES[:1].copy()
    state[0, 0, 0, 0, 0] = 0
    write_lammps_dump(tmp_path / "run", state)
    assert_refused(tmp_path / "run", read_lammps_dump, find, put, message)


def assert_refused(path, read, find, put, message):
    """As the second frame of a file, in an error that names file and frame; without warnings."""
    text = path.read_text()
    assert find in text
    path.write_text(text + text.replace(find, put, 1))
    with (
        warnings.catch_warnings(),
        pytest.raises(ValueError, match=f"{path}: frame 1: .*{message}"),
    ):
        warnings.simplefilter("error")
        read(path)


def test_frames_of_other_size_and_binary_files_are_refused(tmp_path, kind):
    write, read = kind
    for name, cells in (("small", 3), ("large", 4)):
        write(tmp_path / name, crowded_state(cells=cells)[None])
    small, large = ((tmp_path / name).read_bytes() for name in ("small", "large"))
    (tmp_path / "both").write_bytes(small + large)
    with pytest.raises(ValueError, match=r"both: frame 1: 4 cells: must be 3 as in frame 0"):
        read(tmp_path / "both")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="binary: frame 0: "):
        read(tmp_path / "binary")


def test_empty_files_and_wrong_shapes_are_refused(tmp_path, kind):
    write, read = kind
    (tmp_path / "empty").write_text("")
    with pytest.raises(ValueError, match="no frame"):
        read(tmp_path / "empty")
    with pytest.raises(ValueError, match="shape"):
        write(tmp_path / "run", STATES[0])
    with pytest.raises(ValueError, match="one a frame"):
        write(tmp_path / "run", STATES, np.arange(2))
    for codes in (STATES + 2, STATES.astype(np.int64) - 1, STATES / 1):
        with pytest.raises(ValueError, match=r"has dtype .*: must be 0 to 3"):
            write(tmp_path / "run", codes)
    assert not (tmp_path / "run").exists()
