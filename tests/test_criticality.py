"""One point of the Ising plane, and the sweep of many."""

import dataclasses

import numpy as np
import pytest

from macrodyn_lib import criticality, study
from macrodyn_lib.errors import ParameterError
from macrodyn_lib.kernels import ising as kernels
from macrodyn_lib.kernels import multispin
from macrodyn_lib.lattice import Patching
from macrodyn_lib.records import IncrementMoments, Snapshots
from macrodyn_lib.statistics import FiniteSizeData
from macrodyn_lib.systems.ising import Ising, _pack

SYSTEM = Ising(side=16, temperature=2.3, field=0.0)


@pytest.mark.parametrize("shape", [(2, 2), (3, 5), (16, 16)])
def test_classes_of_a_word_equal_those_of_its_replicas(shape):
    states = np.random.default_rng(0).choice([-1, 1], size=(64, *shape)).astype(np.int8)
    expected = np.empty((64, kernels.CLASSES), dtype=np.int64)
    kernels.count_classes(states, expected)
    for count in (multispin.count_classes, multispin.count_classes.py_func):
        counts = np.empty((64, 10), dtype=np.int64)
        with np.errstate(over="ignore"):
            count(_pack(states)[0], counts)
        np.testing.assert_array_equal(counts, expected)


def test_recorded_rates_are_those_of_the_states():
    rng = np.random.default_rng(1)
    tiles = Patching(side=8, stride=4).patches(SYSTEM.lattice_shape, periodic=True)
    states = SYSTEM.initial_states(70, rng)
    last, (z, drift, covariance) = SYSTEM.relaxing_rates(states, tiles, 0.5, 3, rng)
    assert z.shape == drift.shape == (70, 3, 2) and covariance.shape == (70, 3, 2, 2)
    b, s = SYSTEM.rate_moments(last)
    np.testing.assert_allclose(z[:, -1], SYSTEM.observables(last), atol=1e-14)
    np.testing.assert_allclose(drift[:, -1], b, atol=1e-14)
    np.testing.assert_allclose(covariance[:, -1], s, atol=1e-14)
    assert (z[:, 0] != z[:, 1]).any()
    with pytest.raises(ValueError, match="rounds = 0"):
        SYSTEM.relaxing_rates(states, tiles, 0.5, 0, rng)


def some_moments(count=500):
    rng = np.random.default_rng(2)
    latents = np.column_stack([rng.uniform(-1, 1, count), rng.uniform(0, 0.5, count)])
    means, roots = rng.standard_normal((count, 2)), rng.standard_normal((count, 2, 2))
    return IncrementMoments(
        latents=latents,
        means=means,
        scatters=roots @ roots.transpose(0, 2, 1),
        durations=np.ones(count),
        counts=rng.integers(1, 5, count).astype(float),
        n_patches=4,
        scatter_is_noise=True,
        groups=np.arange(count) % 3,
    )


def test_cells_keep_sums_and_do_not_mix_groups():
    moments = some_moments()
    merged = criticality.in_cells(moments, SYSTEM)
    assert len(merged) < len(moments) and merged.counts.sum() == moments.counts.sum()
    assert (merged.latents[:, 0] >= 0).all() and merged.n_patches == 4
    sign = np.where(moments.latents[:, 0] < 0, -1, 1)
    for group in range(3):
        old, new = moments.groups == group, merged.groups == group
        for values, sums in (
            (moments.means[:, 0] * sign, merged.means[:, 0]),
            (moments.means[:, 1], merged.means[:, 1]),
            (moments.scatters[:, 0, 1] * sign, merged.scatters[:, 0, 1]),
            (np.abs(moments.latents[:, 0]), merged.latents[:, 0]),
        ):
            before = (moments.counts * values)[old].sum()
            assert (merged.counts * sums)[new].sum() == pytest.approx(before)


def test_mirror_images_merge_to_the_same():
    moments = some_moments()
    mirrored = dataclasses.replace(
        moments,
        latents=moments.latents * [-1, 1],
        means=moments.means * [-1, 1],
        scatters=moments.scatters * [[1, -1], [-1, 1]],
    )
    ours, theirs = (criticality.in_cells(m, SYSTEM) for m in (moments, mirrored))
    np.testing.assert_allclose(ours.means, theirs.means)
    np.testing.assert_allclose(ours.scatters, theirs.scatters)


def test_same_seed_gives_the_same_point_with_any_threads(monkeypatch):
    small = Snapshots(states=SYSTEM.initial_states(300, np.random.default_rng(0)))
    results = []
    for threads in ("1", "3"):
        monkeypatch.setenv("MACRODYN_THREADS", threads)
        rng = np.random.default_rng(7)
        large = criticality.large_snapshots(SYSTEM.resized(32), small, 1.0, 300, rng)
        _, rates = criticality.relaxing_rates(SYSTEM.resized(32), large, 16, 2, rng)
        results.append(rates)
    np.testing.assert_array_equal(results[0].means, results[1].means)
    assert set(results[0].groups) == {0, 1, 2}


def store(
    folder, name, side, temperature, shift=0.0, error=0.1,
    notebook="05_ising_criticality", code="1", rounds=5,
):  # fmt: skip
    metric = study.Metric(
        value=0.5 + shift, standard_error=error, reference=None, reference_kind=None, passed=True,
        criterion="reported, not judged",
    )  # fmt: skip
    names = (*criticality.QUANTITIES, "relaxation_time")
    results = study.Results(
        notebook=notebook,
        parameters={"side": side, "temperature": temperature, "rounds": rounds, "seed": name},
        metrics={p + name: metric for p in ("", "sampled.", "direct.") for name in names},
        timings_s={},
        provenance={"source_hash": code * 12, "notebook_hash": "0" * 12},
    )
    (folder / name).mkdir(parents=True)
    results.write(folder / name / "results.json")


def test_sweep_is_read_with_means_over_seeds_and_whole_sizes(tmp_path):
    for k, (side, temperature) in enumerate((s, t) for s in (16, 32) for t in (2.2, 2.27, 2.3)):
        store(tmp_path, f"a{k}", side, temperature)
        store(tmp_path, f"b{k}", side, temperature, shift=0.2)
    store(tmp_path, "c", 64, 2.27)
    store(tmp_path, "other", 64, 2.2, notebook="04_ising")
    sweep = criticality.read_sweep(tmp_path)
    assert sweep.sizes_left_out == [64] and sweep.runs == 13
    np.testing.assert_array_equal(sweep.ours.sizes, [16, 32])
    np.testing.assert_allclose(sweep.ours.binder, 0.6)
    np.testing.assert_allclose(sweep.direct.errors["binder"], 0.1 / np.sqrt(2))
    assert sweep.relaxation[32][0].value == pytest.approx(0.6)
    np.testing.assert_allclose(criticality.z_scores(sweep.ours, sweep.direct, "binder"), 0)


def test_attempts_and_damaged_results_of_a_sweep_do_not_count(tmp_path):
    for k, (side, temperature) in enumerate((s, t) for s in (16, 32) for t in (2.2, 2.27, 2.3)):
        store(tmp_path, f"a{k}", side, temperature)
    for attempt in (".b.partial-1", "b.failed"):
        store(tmp_path, attempt, 16, 2.2, shift=0.3)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "results.json").write_text('{"notebook": ')
    with pytest.warns(UserWarning, match=r"c/results.json: not a valid results.json, left out"):
        sweep = criticality.read_sweep(tmp_path)
    assert sweep.runs == 6
    np.testing.assert_allclose(sweep.ours.binder, 0.5)


def test_runs_of_a_sweep_by_different_code_are_named(tmp_path):
    for k, (side, temperature) in enumerate((s, t) for s in (16, 32) for t in (2.2, 2.27, 2.3)):
        store(tmp_path, f"a{k}", side, temperature, code="12"[k == 5])
    with pytest.warns(UserWarning, match=r"different code: library 1111111.*; library 2222222"):
        criticality.read_sweep(tmp_path)


def test_sweeps_are_read_together(tmp_path):
    for k, (side, temperature) in enumerate((s, t) for s in (16, 32) for t in (2.2, 2.27, 2.3)):
        store(tmp_path / "one", f"a{k}", side, temperature)
        store(tmp_path / "two", f"a{k}", 4 * side, temperature, shift=0.1)
    store(tmp_path / "two", "other", 64, 2.4)  # no temperature of the first
    alone = criticality.read_sweep(tmp_path / "one")
    both = criticality.read_sweep(tmp_path / "one", tmp_path / "two")
    assert both.runs == 12 and both.ours.sizes.tolist() == [16, 32, 64, 128]
    np.testing.assert_allclose(both.ours.binder[:, 0], [0.5, 0.5, 0.6, 0.6])
    for other in ("none", "one"):  # the same runs again are no further ones
        assert criticality.read_sweep(tmp_path / "one", tmp_path / other).digest == alone.digest
    assert both.digest != alone.digest


def test_seeds_weigh_the_same_whatever_their_errors(tmp_path):
    for k, (side, temperature) in enumerate((s, t) for s in (16, 32) for t in (2.2, 2.27, 2.3)):
        store(tmp_path, f"a{k}", side, temperature)
        store(tmp_path, f"b{k}", side, temperature, shift=0.3, error=0.2)
    sweep = criticality.read_sweep(tmp_path)
    np.testing.assert_allclose(sweep.ours.binder, 0.65)
    np.testing.assert_allclose(sweep.ours.errors["binder"], np.sqrt(0.05) / 2)


def test_sweep_without_enough_points_is_refused(tmp_path):
    store(tmp_path, "a", 16, 2.2)
    with pytest.raises(ParameterError, match=r"sweep_dir = .* at two sizes and three temperatures"):
        criticality.read_sweep(tmp_path)
    with pytest.raises(ParameterError, match="sweep_dir"):
        criticality.read_sweep(criticality.sweep_folder(str(tmp_path / "nothing")))


def test_runs_of_one_point_differ_in_nothing_but_the_seed(tmp_path):
    for k, (side, temperature) in enumerate((s, t) for s in (16, 32) for t in (2.2, 2.27, 2.3)):
        store(tmp_path, f"a{k}", side, temperature)
    store(tmp_path, "b", 16, 2.27, rounds=7)
    with pytest.raises(ParameterError, match=r"side = 16, temperature = 2.27 must .* in rounds$"):
        criticality.read_sweep(tmp_path)


def test_published_recipe_needs_two_of_the_published_sizes():
    grid = {name: np.full((3, 3), 0.5) for name in criticality.QUANTITIES}
    data = FiniteSizeData(
        sizes=np.array([24, 64, 96]), temperatures=np.array([2.2, 2.27, 2.3]), **grid, errors=grid
    )
    assert criticality.published_recipe(data, np.random.default_rng(0), 20) == {}


def test_sweep_folder_is_found_by_name_or_path(tmp_path, monkeypatch):
    monkeypatch.setenv("MACRODYN_RUNS", str(tmp_path))
    store(tmp_path / "mine", "a", 16, 2.2)
    assert criticality.sweep_folder("mine") == tmp_path / "mine"
    assert criticality.sweep_folder(str(tmp_path / "mine")) == tmp_path / "mine"


def test_published_recipe_gives_of_exact_data_what_facts_say():
    """Cluster updates, as tabulated: 0.128 and 1.757 at T = 2.27; slopes -0.558, -1.06, ..."""
    sizes = np.array([16, 32, 64, 128])
    m = {16: 0.7123, 32: 0.6528, 64: 0.5961, 128: 0.5460}
    x = {16: 4.15, 32: 13.95, 64: 47.51, 128: 159.62}
    u = {
        16: [0.6211, 0.6164, 0.6109, 0.6055, 0.5986],
        32: [0.6286, 0.6200, 0.6104, 0.5981, 0.5836],
        64: [0.6402, 0.6273, 0.6090, 0.5824, 0.5493],
        128: [0.6537, 0.6400, 0.6090, 0.5432, 0.4536],
    }
    data = FiniteSizeData(
        sizes=sizes,
        temperatures=np.array([2.25, 2.26, 2.27, 2.28, 2.29]),
        abs_magnetization=np.array([[m[size]] * 5 for size in sizes]),
        susceptibility=np.array([[x[size]] * 5 for size in sizes]),
        binder=np.array([u[size] for size in sizes]),
        errors={name: np.full((4, 5), 1e-5) for name in criticality.QUANTITIES},
    )
    result = criticality.published_recipe(data, np.random.default_rng(0), 20)
    assert result["beta_over_nu"].value == pytest.approx(0.128, abs=5e-4)
    assert result["gamma_over_nu"].value == pytest.approx(1.757, abs=1e-3)
    slopes = np.log([0.558, 1.06, 2.17])
    expected = 1 / np.polyfit(np.log([16, 32, 64]), slopes, 1)[0]
    assert result["nu"].value == pytest.approx(expected, rel=0.01)
