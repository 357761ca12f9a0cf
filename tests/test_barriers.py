"""Barrier models: the network against its definition and check values, the pair model against H."""

import dataclasses
import hashlib
import os
from pathlib import Path

import numba
import numpy as np
import oracles
import pytest

from macrodyn_lib.errors import WeightsError, WeightsNotFoundError
from macrodyn_lib.kernels.vacancy import DIRECTIONS
from macrodyn_lib.systems import barriers as module
from macrodyn_lib.systems import pair_fit
from macrodyn_lib.systems.barriers import (
    PAIR_FILE,
    BarrierModel,
    PairEnergies,
    barrier_model,
    linear_model,
    network_of_weights,
    pair_model,
    published_weights,
    read_pair_coefficients,
    turned_windows,
    window_offsets,
    write_pair_coefficients,
)
from macrodyn_lib.systems.nbmota import NbMoTa

DATA = Path(os.environ.get("MACRODYN_DATA", "does not exist"))
needs_weights = pytest.mark.skipif(
    not (DATA / "nnk_weights.npz").is_file(), reason="MACRODYN_DATA has no nnk_weights.npz"
)
# R_d of the published encoding, rows x, y, z: the input at o is the window at R_d o
ROTATIONS = np.array(
    [
        [[-1, 0, 0], [0, -1, 0], [0, 0, -1]],
        [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
        [[0, -1, 0], [1, 0, 0], [0, 0, -1]],
        [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
        [[0, 1, 0], [-1, 0, 0], [0, 0, -1]],
        [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
        [[1, 0, 0], [0, 1, 0], [0, 0, -1]],
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    ]
)


def random_weights(seed=0):
    """Weights of the network's shapes whose barriers are of the right size and differ."""
    rng, weights = np.random.default_rng(seed), {}
    for key, shape in module._weight_shapes().items():
        values = rng.standard_normal(shape) * 0.1
        weights[key] = (1 + np.abs(values) if key.endswith(("gamma", "var")) else values).astype(
            "f4"
        )
    weights["dense4_bias"][:] = 1.5
    return weights


def crowded_state(seed=0, cells=4, vacancies=12):
    """A small alloy in which vacancies see each other."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(1, 4, 2 * cells**3).astype(np.uint8)
    codes[rng.choice(len(codes), vacancies, replace=False)] = 0
    return codes.reshape(cells, cells, cells, 2)


def window_of(state, voxel, offsets):
    voxels = (voxel + offsets) % (2 * np.array(state.shape[:3]))
    x, y, z = voxels.T
    return state[x // 2, y // 2, z // 2, x % 2]


def vacancies_of(state):
    return [tuple(int(2 * c + b) for c in cell) for *cell, b in np.argwhere(state == 0)]


# Windows


def test_window_of_the_network_has_112_sites_in_eight_shells():
    squared = np.square(window_offsets(21)).sum(axis=1)
    shells, counts = np.unique(squared, return_counts=True)
    np.testing.assert_array_equal(shells, [3, 4, 8, 11, 12, 16, 19, 20])
    np.testing.assert_array_equal(counts, [8, 6, 12, 24, 8, 6, 24, 24])


def test_turned_windows_equal_the_published_rotations():
    offsets = window_offsets(21)
    for d, order in enumerate(turned_windows(offsets)):
        np.testing.assert_array_equal(offsets[order], offsets @ ROTATIONS[d].T)
        np.testing.assert_array_equal(ROTATIONS[d] @ (1, 1, 1), DIRECTIONS[d])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offsets": window_offsets(3)[::-1]}, "eight neighbours"),
        ({"offsets": window_offsets(4)[:-1]}, "its opposite"),
        ({"memory": 3}, "power of 2"),
        ({"memory": 4, "offsets": window_offsets(27)}, "can be remembered"),
    ],
)
def test_barrier_model_refuses_bad_windows(changes, message):
    model = {"name": "x", "evaluate": None, "parameters": (), "offsets": window_offsets(3)}
    BarrierModel(**model)
    with pytest.raises(ValueError, match=message):
        BarrierModel(**(model | changes))


# The network


@pytest.mark.parametrize("seed", [0, 1])
def test_network_equals_the_dense_definition(seed):
    """Any weights, vacancies in the window: float32 against float64."""
    weights, state = random_weights(seed), crowded_state(seed)
    model, grid = network_of_weights(weights), oracles.alloy_grid(state)
    for voxel in vacancies_of(state):
        ours = model.barriers(window_of(state, voxel, model.offsets)[None])[0]
        expected = oracles.network_barriers(grid, voxel, weights)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
        assert np.ptp(expected[np.isfinite(expected)]) > 1e-3  # the directions differ


@needs_weights
def test_network_equals_the_check_values():
    """Goal 1e-4 eV; float32 rounding is 3e-7."""
    check, model = np.load(DATA / "barriers_check.npz"), barrier_model("network")
    x, y, z = check["positions_voxel"].T
    for species, voxel, expected in zip(
        check["species"], check["vacancy_voxel"], check["barriers_eV"], strict=True
    ):
        state = np.empty((8, 8, 8, 2), dtype=np.uint8)
        state[x // 2, y // 2, z // 2, x % 2] = species
        ours = model.barriers(window_of(state, voxel, model.offsets)[None])[0]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("change", ["missing", "shape", "nan"])
def test_network_refuses_malformed_weights(change):
    weights = random_weights()
    if change == "missing":
        del weights["bn2_mean"]
    elif change == "shape":
        weights["bn2_mean"] = weights["bn2_mean"][:-1]
    else:
        weights["bn2_mean"][3] = np.nan
    with pytest.raises(WeightsError, match="bn2_mean"):
        network_of_weights(weights)


# Getting the weights


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty MACRODYN_DATA, and the right sum for random_weights()."""
    monkeypatch.setenv("MACRODYN_DATA", str(tmp_path))
    digest = hashlib.sha256(b"".join(value.tobytes() for value in random_weights().values()))
    monkeypatch.setattr(module, "WEIGHTS_SHA256", digest.hexdigest())
    return tmp_path


def test_missing_weights_mean_the_pair_model_and_a_clear_warning(folder):
    with pytest.warns(UserWarning, match=r"has no file nnk_weights.npz. Using .* 'pair'"):
        system = NbMoTa(cells=4)
    assert system.barrier_model == "pair" and system.model is pair_model()
    with pytest.raises(WeightsNotFoundError, match=str(folder)):
        barrier_model("network")


def test_weights_in_the_folder_are_used_if_their_sum_is_right(folder):
    np.savez(folder / "nnk_weights.npz", **random_weights())
    assert NbMoTa(cells=4).model.name == "network"


def test_weights_with_another_sum_are_refused(folder):
    path = folder / "nnk_weights.npz"
    np.savez(path, **random_weights(seed=1))
    with pytest.raises(WeightsError, match=f"^{path}: its weights have sha256 .*: must be"):
        NbMoTa(cells=4)
    assert path.is_file()  # it is the user's


@pytest.mark.parametrize("damage", ["truncated", "changed", "pickle", "text", "fewer"])
def test_damaged_weights_are_refused(folder, damage):
    path, weights = folder / "nnk_weights.npz", random_weights()
    if damage == "pickle":
        np.savez(path, **(weights | {"dense0_bias": np.array([{}], dtype=object)}))
    elif damage == "fewer":
        np.savez(path, **dict(list(weights.items())[:-1]))
    else:
        np.savez(path, **weights)
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        path.write_bytes(content[:5000] + b"\0" + content[5001:])
    elif damage == "text":
        path.write_text("not an archive")
    with pytest.raises(WeightsError, match=f"^{path}: "):
        NbMoTa(cells=4)


def object_array(weights):
    array = np.empty(len(weights), dtype=object)
    array[:] = list(weights.values())
    return array


def test_published_format_is_read_without_unpickling(tmp_path):
    path, weights = tmp_path / "weights.npy", random_weights()
    np.save(path, object_array(weights), allow_pickle=True)
    read = published_weights(path)
    assert list(read) == list(weights)
    for key, value in weights.items():
        np.testing.assert_array_equal(read[key], value)


class Trap:
    def __reduce__(self):
        return os.mkdir, (str(Trap.path),)


def test_code_in_a_published_file_is_not_run(tmp_path):
    path, Trap.path = tmp_path / "weights.npy", tmp_path / "sprung"
    np.save(path, np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(WeightsError):
        published_weights(path)
    assert not Trap.path.exists()
    np.load(path, allow_pickle=True)  # planted: the trap does work
    assert Trap.path.exists()


def test_download_is_checked(tmp_path, monkeypatch, folder):
    monkeypatch.delenv("MACRODYN_DATA")
    path = tmp_path / "weights.npy"
    sent = ["other", "truncated", "right"]

    def retrieve(*args, **kwargs):
        """As pooch: what is there is not fetched."""
        if not path.exists():
            what = sent.pop(0)
            weights = random_weights(seed=int(what == "other"))
            np.save(path, object_array(weights), allow_pickle=True)
            if what == "truncated":
                path.write_bytes(path.read_bytes()[:1000])
        return str(path)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    module._network_of.cache_clear()
    for what in ("sha256", "is not the published file"):
        with pytest.raises(WeightsError, match=f"^{path}: .*{what}.* the next call fetches it"):
            barrier_model("network")
        assert not path.exists()
    model = barrier_model("network")
    assert (model.name, model.file, sent) == ("network", path, [])
    assert barrier_model("network") is model
    module._network_of.cache_clear()


def test_only_models_from_a_file_name_one(folder):
    """A network with other weights has the name of the published one, but not its file."""
    np.savez(folder / "nnk_weights.npz", **random_weights())
    assert barrier_model("network").file == folder / "nnk_weights.npz"
    assert pair_model().file == Path(str(PAIR_FILE))
    others = [
        network_of_weights(random_weights(seed=1)),
        linear_model("pair", *read_pair_coefficients(PAIR_FILE)),
    ]
    assert [model.file for model in others] == [None, None]


def test_failed_download_says_what_to_do(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError

    monkeypatch.delenv("MACRODYN_DATA", raising=False)
    monkeypatch.setattr("pooch.retrieve", fail)
    module._network_of.cache_clear()
    with pytest.raises(WeightsNotFoundError, match="set MACRODYN_DATA to a folder"):
        barrier_model("network")


# The pair model


def test_pair_barriers_equal_saddle_energy_and_half_the_change_of_h():
    """Several vacancies; H summed over the whole lattice before and after."""
    pairs, saddles = read_pair_coefficients(PAIR_FILE)
    model, state = pair_model(), crowded_state(vacancies=6)
    grid = oracles.alloy_grid(state)
    before = oracles.pair_energy(grid, pairs.shells, pairs.energies)
    voxel = vacancies_of(state)[0]
    ours = model.barriers(window_of(state, voxel, model.offsets)[None])[0]
    for d, way in enumerate(oracles.HOPS):
        target = tuple((c + o) % 8 for c, o in zip(voxel, way, strict=True))
        if grid[target] == 0:
            assert ours[d] == np.inf
            continue
        moved = grid.copy()
        moved[voxel], moved[target] = grid[target], 0
        change = oracles.pair_energy(moved, pairs.shells, pairs.energies) - before
        saddle = oracles.saddle_energy(
            grid, voxel, way, saddles.orbits, saddles.constants, saddles.energies
        )
        # sums over 128 sites with 58 neighbours
        assert ours[d] == pytest.approx(saddle + change / 2, abs=1e-10)


def test_forward_and_backward_barriers_differ_by_the_change_of_h():
    """Detailed balance around random walks that return: the differences add up to zero."""
    model, rng = pair_model(), np.random.default_rng(3)
    state = crowded_state(seed=5, vacancies=3)
    start, voxel, path, total = state.copy(), np.array(vacancies_of(state)[1]), [], 0.0
    for d in [*rng.integers(8, size=12)]:
        path.append(int(d))
    for d in path + [7 - d for d in reversed(path)]:
        forward = model.barriers(window_of(state, voxel, model.offsets)[None])[0, d]
        target = (voxel + DIRECTIONS[d]) % 8
        (x, y, z), (i, j, k) = voxel, target
        if state[i // 2, j // 2, k // 2, i % 2] == 0:
            pytest.fail("choose another seed: the walk meets a vacancy")
        state[x // 2, y // 2, z // 2, x % 2] = state[i // 2, j // 2, k // 2, i % 2]
        state[i // 2, j // 2, k // 2, i % 2] = 0
        voxel = target
        backward = model.barriers(window_of(state, voxel, model.offsets)[None])[0, 7 - d]
        total += forward - backward
    np.testing.assert_array_equal(state, start)
    assert abs(total) < 1e-12


def test_pair_coefficients_survive_a_round_trip(tmp_path):
    pairs, saddles = read_pair_coefficients(PAIR_FILE)
    write_pair_coefficients(tmp_path / "again.txt", pairs, saddles, "some comment\n\nand more")
    again = read_pair_coefficients(tmp_path / "again.txt")
    np.testing.assert_array_equal(again[0].energies, pairs.energies)
    np.testing.assert_array_equal(again[1].energies, saddles.energies)
    assert again[1].orbits == saddles.orbits


@pytest.mark.parametrize("line", ["pair 3 Nb Cu 0.1", "pair 3 Nb", "saddle 3 4 Nb Mo x", "what"])
def test_bad_coefficient_file_names_the_line(tmp_path, line):
    path = tmp_path / "bad.txt"
    path.write_text(PAIR_FILE.read_text() + line + "\n")
    with pytest.raises(ValueError, match=f"line {len(PAIR_FILE.read_text().splitlines()) + 1}"):
        read_pair_coefficients(path)


def test_pair_energies_must_be_symmetric():
    energies = np.zeros((1, 4, 4))
    energies[0, 1, 2] = 1.0
    with pytest.raises(ValueError, match="symmetric"):
        PairEnergies(shells=(3,), energies=energies)


def test_fit_recovers_a_pair_model_from_its_barriers():
    """The embedded model fitted to itself: nothing is left over."""
    rng = np.random.default_rng(0)
    states = NbMoTa(cells=8, barrier_model="pair").initial_states(700, rng)
    hops = pair_fit.collect_hops(pair_model(), states)
    fitted = linear_model("again", *pair_fit.fit_pair_model(hops))
    for r_squared, error in pair_fit.quality(fitted, hops).values():
        assert r_squared > 1 - 1e-10 and error < 1e-6
    wrong = dataclasses.replace(hops, forward=hops.backward, backward=hops.forward)  # planted
    assert (
        pair_fit.quality(linear_model("wrong", *pair_fit.fit_pair_model(wrong)), hops)["E - E'"][0]
        < 0
    )


def test_stored_quality_of_the_pair_model_is_what_the_design_asks_for():
    text = PAIR_FILE.read_text()
    scores = [line.split("R^2 ")[1].split(",")[0] for line in text.splitlines() if "R^2" in line]
    assert len(scores) == 3 and float(scores[0]) > 0.97


@needs_weights
def test_stored_quality_holds_on_states_of_its_own():
    rng = np.random.default_rng(11)
    states = NbMoTa(cells=8, barrier_model="pair").initial_states(50, rng)
    hops = pair_fit.collect_hops(barrier_model("network"), states)
    scores = pair_fit.quality(pair_model(), hops)
    assert scores["barriers"][0] > 0.96 and scores["barriers"][1] < 0.05


# Models of one's own


@numba.njit
def constant_barriers(window, parameters, barriers):
    barriers[:] = parameters[0][window[:8]]


def test_own_model_can_be_registered_and_used_by_name(monkeypatch):
    monkeypatch.setattr(module, "_REGISTRY", dict(module._REGISTRY))
    own = BarrierModel(
        name="by species",
        evaluate=constant_barriers,
        parameters=(np.array([9.0, 1.0, 2.0, 3.0]),),
        offsets=window_offsets(3),
    )
    module.register("by species", lambda: own)
    assert NbMoTa(cells=4, barrier_model="by species").model is own
    np.testing.assert_array_equal(
        own.barriers(np.array([[1, 2, 3, 0, 1, 1, 1, 1]])), [[1, 2, 3, np.inf, 1, 1, 1, 1]]
    )
    with pytest.raises(ValueError, match="is taken"):
        module.register("pair", lambda: own)
    with pytest.raises(ValueError, match="must be one of network, pair, by species"):
        barrier_model("nothing")
