"""The steps in a row: what a recipe makes of its ingredients, and what is judged in the end.

Most fits are looked at on their way in and not made; paths are made by hand where their law has to
be known.
"""

import dataclasses
import math

import numpy as np
import pytest

from macrodyn_lib import pipeline
from macrodyn_lib.fitting import TrainingSettings
from macrodyn_lib.partial_evolution import averaged_increments, latent_states, rate_increments
from macrodyn_lib.pipeline import EquilibriumTest, Learned, Recipe, RolloutTest
from macrodyn_lib.records import Snapshots, Trajectories
from macrodyn_lib.rollouts import EnsemblePaths
from macrodyn_lib.sde import MLPSDE
from macrodyn_lib.statistics import binder_cumulant, mean_estimate, susceptibility
from macrodyn_lib.systems.ising import Ising

SYSTEM = Ising(side=8)
RECIPE = Recipe(
    patch_side=4,
    snapshots=60,
    times=(0.5, 1.0, 2.0),
    relax_durations=(0.0, 0.5),
    duration=0.2,
    members=2,
    settings=TrainingSettings(steps=5, check_every=5),
    hidden=(4,),
)


def rng(seed=0):
    return np.random.default_rng(seed)


def snapshots_of(recipe, seed=0):
    return recipe.snapshots_of(SYSTEM, rng(seed))


def as_set(states):
    return {state.tobytes() for state in states}


# Recipes


def test_recipe_with_a_change_differs_in_that_alone():
    changed = RECIPE.but(duration=0.4, source="direct")
    assert (changed.duration, changed.source) == (0.4, "direct")
    assert changed.but(duration=0.2, source="upsampled") == RECIPE
    assert RECIPE.duration == 0.2
    with pytest.raises(TypeError, match="durations"):
        RECIPE.but(durations=0.4)


def test_recipe_cuts_patches_of_its_side_and_boundary():
    patching = RECIPE.but(boundary="buffer(2)").patching
    assert (patching.side, patching.boundary, patching.buffer_width) == (4, "buffer", 2)


def test_upsampled_snapshots_are_enlarged_small_ones():
    recipe = RECIPE.but(relax_durations=(0.0,))
    pool = snapshots_of(recipe)
    assert pool.states.shape == (60, 8, 8)
    small_rng, _ = rng().spawn(2)
    small = recipe.small_snapshots(SYSTEM, small_rng)
    assert small.lattice_shape == (4, 4) and len(small) == 60
    np.testing.assert_array_equal(pool.states, np.kron(pool.states[:, ::2, ::2], np.ones((2, 2))))
    assert as_set(pool.states[:, ::2, ::2]) <= as_set(small.states)
    assert set(pool.groups) <= set(small.groups)


@pytest.mark.parametrize(
    "recipe", [RECIPE.but(source="direct"), RECIPE.but(patch_side=8)], ids=["direct", "same size"]
)
def test_snapshots_of_the_large_system_are_simulated_ones(recipe):
    """Each once; neither enlarged nor relaxed."""
    pool = snapshots_of(recipe)
    small_rng, _ = rng().spawn(2)
    simulated = recipe.but(patch_side=8).small_snapshots(SYSTEM, small_rng)
    assert simulated.lattice_shape == (8, 8)
    assert as_set(pool.states) == as_set(simulated.states)
    owners = dict(zip(map(bytes, simulated.states), simulated.groups, strict=True))
    assert [owners[bytes(state)] for state in pool.states] == pool.groups.tolist()


def test_share_of_initial_states_is_appended_with_groups_of_its_own():
    pool = snapshots_of(RECIPE.but(initial_fraction=0.25, relax_durations=(0.0,)))
    enlarged, initial = pool.select(np.arange(45)), pool.select(np.arange(45, 60))
    np.testing.assert_array_equal(enlarged.states[:, ::2], enlarged.states[:, 1::2])
    assert (initial.states[:, ::2] != initial.states[:, 1::2]).any()
    assert len(set(initial.groups)) == 15 and not set(initial.groups) & set(enlarged.groups)
    only = snapshots_of(RECIPE.but(initial_fraction=1.0))
    assert only.states.shape == (60, 8, 8) and len(set(only.groups)) == 60


def test_relaxation_times_of_a_recipe_are_used():
    bare, relaxed = (
        snapshots_of(RECIPE.but(relax_durations=durations)).states for durations in ((0,), (2.0,))
    )
    assert (bare != relaxed).any(axis=0).all()


# Learning


@pytest.fixture
def fits(monkeypatch):
    """What would be fitted: increments, model and options of each ensemble."""
    asked = []

    def fit_ensemble(increments, model, **options):
        asked.append((increments, model, options))
        return ["member"] * options["members"]

    monkeypatch.setattr(pipeline, "fit_ensemble", fit_ensemble)
    return asked


def assert_same(record, other):
    assert type(record) is type(other)
    for field in dataclasses.fields(record):
        np.testing.assert_array_equal(getattr(record, field.name), getattr(other, field.name))


def test_learning_from_rates_takes_the_rates_of_all_snapshots(fits):
    pool = snapshots_of(RECIPE)
    recipe = RECIPE.but(increments="rates", noise_scale=3.0, signs=(-1, 1))
    learned = recipe.learn(SYSTEM, rng(), snapshots=pool)
    ((increments, model, options),) = fits
    assert_same(increments, rate_increments(SYSTEM, pool))
    assert model == MLPSDE(2, hidden=(4,), signs=(-1, 1))
    assert options["noise_scale"] is None  # rates have K = 1, whatever that of patches
    assert options["settings"] == RECIPE.settings
    assert learned.members == ["member"] * 2 and learned.closure is None


@pytest.mark.parametrize("continuations", [2, 4])
def test_learning_takes_all_patches_and_the_baseline_the_same(fits, continuations):
    pool, recipe = snapshots_of(RECIPE), RECIPE.but(noise_scale=3.0, continuations=continuations)
    learned = recipe.learn(SYSTEM, rng(), snapshots=pool, naive=True)
    expected = averaged_increments(
        SYSTEM, pool, RECIPE.patching, duration=0.2, continuations=continuations,
        rng=rng().spawn(5)[1],
    )  # fmt: skip
    for (increments, _, _), moments in zip(fits, expected, strict=True):
        assert_same(increments, moments)
    assert [moments.n_patches for moments in expected] == [4, 1]
    assert [options["noise_scale"] for _, _, options in fits] == [3.0, None]
    assert len(learned.members) == len(learned.naive_members) == 2


def test_learning_with_closures_adds_them_to_the_latents(fits):
    pool = snapshots_of(RECIPE)
    learned = RECIPE.but(closure_dimension=2).learn(SYSTEM, rng(), snapshots=pool)
    ((increments, model, _),) = fits
    latents = latent_states(SYSTEM, pool.states, RECIPE.patching, learned.closure)
    np.testing.assert_allclose(increments.latents, latents, atol=1e-12)
    np.testing.assert_allclose(latents[:, 2:].std(axis=0), 1, rtol=1e-4)
    assert model.dimension == learned.recipe.model(SYSTEM).dimension == 4


def test_closures_cannot_be_learned_from_rates():
    recipe = RECIPE.but(increments="rates", closure_dimension=1)
    with pytest.raises(ValueError, match="increments = 'rates': only for the observables"):
        recipe.learn(SYSTEM, rng(), snapshots=snapshots_of(RECIPE))


def test_whole_method_ends_in_finite_results_that_repeat(monkeypatch):
    """From the recipe alone to the summary of its rollouts, with closures and the baseline."""
    monkeypatch.setenv("MACRODYN_THREADS", "1")
    test = rollout_test(start_states=SYSTEM.initial_states(6, rng()).reshape(2, 3, 8, 8))
    recipes = {"rates": RECIPE.but(increments="rates"), "closures": RECIPE.but(closure_dimension=1)}
    first, again = (
        {
            name: pipeline.compare_recipes(
                SYSTEM, {name: recipe}, test, rng(1), naive=name == "closures"
            )[name]
            for name, recipe in recipes.items()
        }
        for _ in range(2)
    )
    assert first == again
    ours = {"error.ours", "error_transient.ours", "deviation.mean_M", "relaxation_time"}
    ours |= {f"stationary.{moment}_{name}" for moment in ("mean", "std") for name in ("M", "rho")}
    assert set(first["rates"]) == ours
    assert set(first["closures"]) == ours | {"error.naive", "error_transient.naive"}
    values = [estimate.value for result in first.values() for estimate in result.values()]
    assert np.isfinite(values).all()
    columns = pipeline.column(first, "error.ours")
    expected = [[e.value, e.standard_error] for e in (r["error.ours"] for r in first.values())]
    np.testing.assert_array_equal(columns, np.transpose(expected))


# Rollout tests


def rollout_test(**changes):
    fields = {
        "start": np.array([[0.5, 0.2], [-0.5, 0.3]]),
        "replicas": 3,
        "times": np.arange(9.0),
        "true_mean": np.ones((2, 9, 2)),
        "every": 4,
        "max_step": 0.5,
    }
    return RolloutTest(**(fields | changes))


def by_hand(values, times=None):
    """Paths of one latent (R, B, n, T), or of several (R, B, n, T, d)."""
    values = np.asarray(values, dtype=float)
    values = values[..., None] if values.ndim == 4 else values
    times = np.arange(values.shape[3], dtype=float) if times is None else times
    return EnsemblePaths(times=times, paths=values)


def test_paths_start_at_the_given_observables_without_closures():
    test, learned = rollout_test(), Learned(recipe=RECIPE, members=[])
    np.testing.assert_array_equal(test.starts(learned, SYSTEM), test.start)


def test_paths_start_at_the_mean_latents_of_the_states_with_closures():
    pool = snapshots_of(RECIPE)
    closure = RECIPE.but(closure_dimension=2).closure(SYSTEM, pool, rng())
    learned = Learned(recipe=RECIPE, members=[], closure=closure)
    states = pool.states[:12].reshape(3, 4, 8, 8)
    starts = rollout_test(start_states=states).starts(learned, SYSTEM)
    latents = latent_states(SYSTEM, pool.states[:12], RECIPE.patching, closure)
    np.testing.assert_allclose(starts, latents.reshape(3, 4, 4).mean(axis=1), atol=1e-12)
    with pytest.raises(ValueError, match="start_states = None: closures need the states"):
        rollout_test().starts(learned, SYSTEM)


def test_transient_error_takes_every_time_up_to_its_end():
    """Paths are off by 1 at time 1 alone, which the error at every 4th time does not see."""
    values = np.ones((2, 2, 3, 9, 2))
    values[..., 1, :] = 2
    test = rollout_test(transient=3.0)
    paths = by_hand(values)
    assert test.error(paths).value == 0
    # 4 times to 3.0, of which one is off by 1 in both components: 2 / (4 2)
    assert test.error_transient(paths).value == pytest.approx(1 / 4)


def test_transient_may_have_a_test_of_its_own():
    """With its own truth, 1 less at each time, and more paths."""
    early = rollout_test(true_mean=np.full((2, 9, 2), 0.5), replicas=5, every=1)
    test = rollout_test(transient=3.0, early=early)
    assert test.error_transient(by_hand(np.full((2, 2, 3, 4, 2), 0.5))).value == 0
    assert test.deviation(by_hand(np.full((2, 2, 3, 4, 2), 0.75))).value == 0.25
    asked = []

    class Drawn(RolloutTest):
        __slots__ = ()

        def paths(self, members, rng, description=None, start=None):
            asked.append((self.replicas, self.times.tolist(), members, start))

    fields = {f.name: getattr(early, f.name) for f in dataclasses.fields(early)}
    dataclasses.replace(test, early=Drawn(**fields)).early_paths(["member"], rng(), "start")
    assert asked == [(5, [0, 1, 2, 3], ["member"], "start")]


def test_shorter_test_and_test_from_one_start():
    test = rollout_test()
    short = test.shortened(4.0)
    assert short.times.tolist() == [0, 1, 2, 3, 4] and short.true_mean.shape == (2, 5, 2)
    single = test.from_one_start(0.1, 2.0)
    np.testing.assert_array_equal(single.start, [[0.1, 0.1]])
    assert single.replicas == 6 and single.true_mean is None and len(single.times) == 3


# Against direct simulation


def test_direct_paths_are_ordered_by_word_start_and_replica():
    times = np.array([0.0, 0.5, 1.0])
    paths, starts = pipeline.direct_paths(SYSTEM, [-0.5, 0.0, 0.5], times, words=2, rng=rng())
    assert paths.paths.shape == (2, 3, 64, 3, 2) and starts.shape == (3, 128, 8, 8)
    np.testing.assert_allclose(starts.mean(axis=(2, 3)), np.repeat([[-0.5], [0], [0.5]], 128, 1))
    for word in range(2):
        for start in range(3):
            expected = SYSTEM.observables(starts[start, 64 * word : 64 * (word + 1)])
            np.testing.assert_array_equal(paths.paths[word, start, :, 0], expected)


def test_truth_about_latents_is_their_mean_and_range_in_direct_states():
    pool = snapshots_of(RECIPE)
    recipe = RECIPE.but(closure_dimension=1)
    closure = recipe.closure(SYSTEM, pool, rng())
    learned = Learned(recipe=recipe, members=[], closure=closure)
    starts, times = pool.states[:20].reshape(2, 10, 8, 8), np.array([0.0, 3.0])
    direct = pipeline.direct_states(SYSTEM, starts, times, rng())
    np.testing.assert_array_equal(direct.states[:, :, 0], starts)
    assert (direct.states[:, :, 1] != starts).any()
    means, ranges = pipeline.latent_truth(SYSTEM, direct, learned)
    all_states = direct.states.reshape(-1, 8, 8)
    latents = latent_states(SYSTEM, all_states, recipe.patching, closure).reshape(2, 10, 2, 3)
    np.testing.assert_allclose(means, latents.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(ranges, [latents.min((0, 1, 2)), latents.max((0, 1, 2))])
    test = rollout_test(direct_states=direct)
    exact = np.zeros((2, 2, 3, 9, 3))
    exact[..., 0, :], exact[..., 3, :] = (means[None, :, None, t] for t in range(2))
    assert test.error_latent(by_hand(exact), SYSTEM, learned).value < 1e-25
    assert test.error_latent(by_hand(exact + 0.1), SYSTEM, learned).value > 0.01


def test_error_of_latents_is_in_units_of_their_ranges_but_for_m():
    # one start, times 0 to 4, of which 0, 2 and 4 count; M and one closure between 10 and 30
    m, closure = np.full((2, 1, 3, 5), 0.5), np.full((2, 1, 3, 5), 20.0)
    closure[..., 2], closure[..., 3] = 24.0, 1e9
    paths = by_hand(np.stack([m, closure], axis=-1))
    truth = np.tile([0.6, 20.0], (1, 3, 1))
    estimate = pipeline.error_of_latents(
        paths, np.array([0.0, 2.0, 4.0]), truth, np.array([[-1.0, 10.0], [1.0, 30.0]])
    )
    # M off by 0.1 three times; the closure, 0.5 in its range, off by 0.2 once
    assert estimate.value == pytest.approx((3 * 0.01 + 0.04) / (3 * 0.36 + 3 * 0.25))
    assert estimate.standard_error == 0  # members alike


def test_furthest_mean_has_the_errors_of_both_at_that_place():
    times, shape = np.arange(3.0), (4, 2, 5, 3, 2)
    noise, truth = rng(1).normal(size=shape), rng(2).normal(size=shape)
    noise[:, 1, :, 2, 0] -= 10.0
    noise[..., 1] += 100.0  # only M counts
    true_mean, true_error = by_hand(truth, times).means()
    test = rollout_test(times=times, true_mean=true_mean, true_error=true_error)
    estimate = test.deviation(by_hand(noise, times))
    ours, theirs = (mean_estimate(x[:, 1, :, 2, 0].mean(axis=1)) for x in (noise, truth))
    assert estimate.value == pytest.approx(theirs.value - ours.value)
    expected = math.hypot(ours.standard_error, theirs.standard_error)
    assert estimate.standard_error == pytest.approx(expected)
    assert estimate.members == 4


# Equilibria

EQUILIBRIUM = EquilibriumTest(window=4.0, spacing=2.0, replicas=3, max_step=0.5)


def test_equilibrium_is_recorded_over_two_windows():
    np.testing.assert_array_equal(EQUILIBRIUM.times, [0, 2, 4, 6, 8])


def test_noise_ratio_divides_the_learned_covariance(monkeypatch):
    """lambda = ratio K stands for a covariance of K / lambda; the drift is the same."""
    monkeypatch.setenv("MACRODYN_THREADS", "1")  # fits here, where they can be seen
    asked = []

    def rollout_ensemble(members, *, start, replicas, times, **options):
        asked.append((members, start))
        paths = np.zeros((len(members), len(start), replicas, len(times), 2))
        return EnsemblePaths(times=times, paths=paths)

    monkeypatch.setattr(pipeline, "rollout_ensemble", rollout_ensemble)
    pool, ratios = snapshots_of(RECIPE), (0.25, 1.0, 4.0)
    results = pipeline.learn_equilibria(
        {"task": (SYSTEM, RECIPE, pool)}, EQUILIBRIUM, rng(), noise_ratios=ratios
    )
    assert list(results["task"]) == list(ratios) and len(asked) == 3
    z = SYSTEM.observables(pool.states)
    reference = asked[1][0]
    for ratio, (members, start) in zip(ratios, asked, strict=True):
        for member, same in zip(members, reference, strict=True):
            np.testing.assert_array_equal(member.drift(z), same.drift(z))
            np.testing.assert_allclose(ratio * member.covariance(z), same.covariance(z))
        assert len(start) == 3 and as_set(start) <= as_set(z)
        assert results["task"][ratio].paths.shape == (2, 1, 3, 5, 2)


def test_learned_equilibria_have_replicas_as_paths_of_one_start(monkeypatch):
    monkeypatch.setenv("MACRODYN_THREADS", "1")
    pool = snapshots_of(RECIPE)
    tasks = {"a": (SYSTEM, RECIPE.but(increments="rates"), pool)}
    paths = pipeline.learn_equilibria(tasks, EQUILIBRIUM, rng())["a"][1.0]
    assert paths.paths.shape == (2, 1, 3, 5, 2) and np.isfinite(paths.paths).all()
    # the members start from the same snapshots and go their own ways
    np.testing.assert_array_equal(paths.paths[0, 0, :, 0], paths.paths[1, 0, :, 0])
    assert (paths.paths[0, 0, :, 1:] != paths.paths[1, 0, :, 1:]).all()


def smooth_paths(seed=0, members=2):
    """|M| between 0.2 and 0.6, correlated in time; rho is 0."""
    generator = rng(seed)
    steps = generator.standard_normal((members, 1, 8, 40))
    m = 0.4 + 0.2 * np.sin(np.cumsum(steps, axis=3))
    return by_hand(np.stack([m, np.zeros_like(m)], axis=-1))


def shifted(paths, by):
    """|M| moved by a number per member."""
    values = paths.paths.copy()
    values[..., 0] += np.reshape(by, (-1, 1, 1, 1))
    return dataclasses.replace(paths, paths=values)


def test_distances_of_paths_from_themselves_vanish():
    paths = smooth_paths()
    estimates = pipeline.distances(paths, paths, 5)
    assert {name: estimate.value for name, estimate in estimates.items()} == {
        "law": 0.0,
        "autocorrelation": 0.0,
    }
    flipped = dataclasses.replace(paths, paths=-paths.paths)
    assert pipeline.distances(flipped, paths, 5)["law"].value == 0  # the law of |M|


def test_distance_of_a_shifted_law_is_the_shift_and_of_its_autocorrelation_nothing():
    paths = smooth_paths()
    estimates = pipeline.distances(shifted(paths, [0.1, 0.1]), paths, 5)
    assert estimates["law"].value == pytest.approx(0.1)
    assert estimates["autocorrelation"].value == pytest.approx(0, abs=1e-12)
    # every other time: the autocorrelation of two lags for that of one
    faster = EnsemblePaths(times=paths.times[::2], paths=paths.paths[:, :, :, ::2])
    assert pipeline.distances(faster, paths, 5)["autocorrelation"].value > 0.1


RATIOS = (0.25, 0.5, 1.0, 2.0, 4.0)


def test_best_noise_ratio_is_the_minimum_of_the_parabola_and_its_error_that_of_the_members():
    """|M| above the truth by a parabola in log2 of the ratio, of which the distance is the mean."""
    direct, centres = smooth_paths(), np.array([0.3, -0.1])
    by_ratio = {
        ratio: shifted(direct, 0.05 + 0.1 * (math.log2(ratio) - centres) ** 2) for ratio in RATIOS
    }
    best = pipeline.best_noise_ratio(by_ratio, direct, "law", 5)
    assert best.value == pytest.approx(2**0.1) and best.members == 2
    choices = 2**centres
    assert best.standard_error == pytest.approx(abs(choices[0] - choices[1]) / 2)


@pytest.mark.parametrize(
    ("excess", "expected"),
    [
        ([0.5, 0.4, 0.3, 0.2, 0.1], 4.0),  # falling: the largest
        ([0.1, 0.2, 0.3, 0.4, 0.5], 0.25),  # rising: the smallest
        ([0.4, 0.3, 0.0, 0.3, 0.4], 1.0),  # a parabola through three points
        ([0.5, 0.5, 0.4, 0.3, 0.1], 4.0),  # no minimum between: the best of those tried
    ],
)
def test_best_noise_ratio_stays_within_those_tried(excess, expected):
    direct = smooth_paths()
    by_ratio = {r: shifted(direct, [e, e]) for r, e in zip(RATIOS, excess, strict=True)}
    best = pipeline.best_noise_ratio(by_ratio, direct, "law", 5)
    assert best.value == pytest.approx(expected)
    assert best.standard_error == pytest.approx(0, abs=1e-12)


def test_equilibrium_estimates_are_those_of_the_second_window():
    paths = smooth_paths(members=3)
    values = paths.paths.copy()
    values[..., :20, :] = 7.0  # the first window does not count
    values[..., 1] = 0.25
    values[1] *= -1
    estimates = pipeline.equilibrium_estimates(dataclasses.replace(paths, paths=values), SYSTEM)
    late = paths.paths[:, 0, :, 20:, 0]
    assert estimates["abs_magnetization"].value == pytest.approx(late.mean())
    assert estimates["susceptibility"].value == pytest.approx(
        susceptibility(late, 64, SYSTEM.temperature)
    )
    assert estimates["binder"].value == pytest.approx(binder_cumulant(late))
    assert estimates["rho"].value == pytest.approx((0.25 - 0.25 + 0.25) / 3)
    upright = dataclasses.replace(paths, paths=np.abs(values))
    expected = upright.relaxation_time()
    assert estimates["relaxation_time"].value == pytest.approx(expected.value)


def test_estimates_of_a_whole_fit_have_the_errors_of_the_members():
    members, whole = smooth_paths(members=4), smooth_paths(seed=5, members=2)
    paths = dataclasses.replace(members, whole=whole.paths.reshape(1, 16, 40, 2))
    ours = pipeline.equilibrium_estimates(paths, SYSTEM)
    alone = pipeline.equilibrium_estimates(whole, SYSTEM)
    # a member twice over has the estimates of the member
    each = [
        pipeline.equilibrium_estimates(by_hand(members.paths[[r, r]]), SYSTEM) for r in range(4)
    ]
    for name in ("susceptibility", "binder", "abs_magnetization"):
        assert ours[name].value == pytest.approx(alone[name].value)
        spread = np.std([e[name].value for e in each], ddof=1)
        assert ours[name].standard_error == pytest.approx(spread / 2)
        assert ours[name].members == 4


def test_whole_fit_sees_the_data_of_all_members(fits, monkeypatch):
    asked = []

    def fit_sde(increments, model, **options):
        asked.append((increments, options))
        return "whole"

    monkeypatch.setattr(pipeline, "fit_sde", fit_sde)
    recipe = RECIPE.but(whole=True, noise_scale=3.0)
    assert recipe.learn(SYSTEM, rng(), snapshots=snapshots_of(RECIPE)).whole == "whole"
    assert asked[0][0] is fits[0][0] and asked[0][1]["noise_scale"] == 3.0
    assert asked[0][1]["settings"].batch == recipe.members * recipe.settings.batch
    assert RECIPE.learn(SYSTEM, rng(), snapshots=snapshots_of(RECIPE)).whole is None


def test_estimates_of_cluster_updates_are_those_of_the_pooled_chains():
    observables = rng().uniform(-1, 1, size=(5, 30, 2))
    chains = Trajectories(times=np.arange(30.0), observables=observables)
    estimates = pipeline.cluster_estimates(chains, SYSTEM)
    m, rho = observables[..., 0], observables[..., 1]
    expected = {
        "abs_magnetization": mean_estimate(np.abs(m).mean(axis=1)),
        "rho": mean_estimate(rho.mean(axis=1)),
    }
    assert {name: estimates[name] for name in expected} == expected
    assert estimates["susceptibility"].value == susceptibility(m, 64, SYSTEM.temperature)
    assert estimates["binder"].value == binder_cumulant(m)


def test_direct_equilibrium_has_a_member_for_each_word():
    starts = SYSTEM.initial_states(128, rng())
    paths = pipeline.direct_equilibrium(SYSTEM, starts, EQUILIBRIUM, rng())
    assert paths.paths.shape == (2, 1, 64, 5, 2)
    observables = SYSTEM.observables(starts).reshape(2, 64, 2)
    np.testing.assert_array_equal(paths.paths[:, 0, :, 0], observables)


def test_equilibrium_snapshots_come_from_the_runs_they_are_grouped_by():
    system = Ising(side=4, temperature=2.25, field=0.0)
    pool, starts = pipeline.equilibrium_snapshots(system, 1000, rng(), spacing=2.0)
    assert pool.states.shape == (1024, 4, 4) and starts.shape == (512, 4, 4)
    np.testing.assert_array_equal(pool.groups, np.repeat(np.arange(512), 2))


def test_small_snapshots_of_equilibrium_are_twenty_from_each_run():
    system = Ising(side=4, temperature=2.25, field=0.0)
    pool = pipeline.small_equilibrium_snapshots(system, 130, rng(), start=5.0)
    assert pool.states.shape == (140, 4, 4)
    np.testing.assert_array_equal(pool.groups, np.repeat(np.arange(7), 20))


def test_snapshots_are_upsampled_with_each_duration():
    small = Snapshots(states=Ising(side=4).initial_states(10, rng()))
    pools = pipeline.upsample_for_each_duration(SYSTEM, small, (0.0, 1.0), 20, rng())
    assert {d: pool.states.shape for d, pool in pools.items()} == dict.fromkeys(
        (0.0, 1.0), (20, 8, 8)
    )
    blocky = [(p.states[:, ::2] == p.states[:, 1::2]).all() for p in pools.values()]
    assert blocky == [True, False]


def test_quality_of_a_pool_is_its_mean_functions_and_its_magnetizations():
    states = np.ones((3, 8, 8), dtype=np.int8)
    states[0] = -1
    correlation, factor, m = pipeline.quality(SYSTEM, Snapshots(states=states))
    np.testing.assert_allclose(correlation, np.ones(5))
    np.testing.assert_allclose(factor, [64, 0, 0, 0, 0], atol=1e-12)
    np.testing.assert_array_equal(m, [-1, 1, 1])


def test_quality_of_upsampling_compares_true_snapshots_with_enlarged_ones():
    pools = pipeline.upsampling_quality(SYSTEM, RECIPE, (0.02, 50.0), 256, rng())
    assert list(pools) == [0.0, 0.02, 50.0]

    def blockiness(states):
        """Neighbours within a block less those across; its noise is about 0.01."""
        same = states == np.roll(states, -1, axis=1)
        return same[:, ::2].mean() - same[:, 1::2].mean()

    true, short, long = (blockiness(pool.states) for pool in pools.values())
    assert short > 0.03  # ten times its noise
    assert max(abs(true), abs(long)) < 0.04
