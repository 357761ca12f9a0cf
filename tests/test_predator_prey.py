"""The predator-prey SPDE (paper Sec. III.1) against its slow twin, scipy and exact spectra."""

import dataclasses

import numpy as np
import oracles
import pytest
from scipy.fft import dct

from macrodyn_lib.closure import fit_two_field_closure
from macrodyn_lib.errors import DivergedError
from macrodyn_lib.exact import PredatorPreyExact
from macrodyn_lib.kernels.predator_prey import euler_maruyama_inplace
from macrodyn_lib.lattice import Patch, Patching
from macrodyn_lib.partial_evolution import averaged_increments, latent_states, rate_increments
from macrodyn_lib.records import Snapshots
from macrodyn_lib.systems.predator_prey import PredatorPrey
from macrodyn_lib.upsampling import LocalRelax, upsample

PHYSICS = {"a": 2.5, "b": 0.3, "c": 0.2, "noise": 0.05}
SYSTEM = PredatorPrey(n_cells=12, predator_diffusion=0.7, **PHYSICS)
PAPER = PredatorPrey(n_cells=40)
# Sums of a few numbers of order 1 in another order, some steps: well above 1e-16, far below errors.
ROUNDING = 1e-13

REGIONS = {
    "whole": (0, 12, "ghost"),
    "first": (0, 4, "ghost"),
    "middle": (4, 8, "ghost"),
    "last": (8, 12, "ghost"),
    "one cell": (5, 6, "ghost"),
    "middle wrapped": (4, 8, "periodic"),
    "one cell wrapped": (5, 6, "periodic"),
}
each_region = pytest.mark.parametrize(("start", "stop", "boundary"), REGIONS.values(), ids=REGIONS)


def patch_of(start, stop, boundary="ghost", n=12):
    return Patch(start=(start,), shape=(stop - start,), lattice_shape=(n,), boundary=boundary)


def states_of(count=3, n=12):
    return np.random.default_rng(1).uniform(0.1, 0.9, size=(count, n, 2))


def oracle(states, start, stop, boundary, n_steps, time_step, rng, system=SYSTEM):
    kicks = rng.standard_normal((len(states), n_steps, stop - start, 2))
    return oracles.predator_prey(
        states,
        start,
        stop,
        kicks,
        wrapped=boundary == "periodic",
        time_step=time_step,
        growth=system.a,
        threshold=system.b,
        prey_diffusion=system.c,
        predator_diffusion=system.predator_diffusion,
        noise=system.noise,
    )


@each_region
def test_patch_trajectory_equals_oracle(start, stop, boundary):
    states, h = states_of(), SYSTEM.time_step
    patch = patch_of(start, stop, boundary)
    evolved = SYSTEM.evolve_patch(states, patch, 5 * h, np.random.default_rng(2))
    expected = oracle(states, start, stop, boundary, 5, h, np.random.default_rng(2))
    np.testing.assert_allclose(evolved, expected, rtol=0, atol=ROUNDING)
    outside = np.r_[0:start, stop:12]
    np.testing.assert_array_equal(evolved[:, outside], states[:, outside])


def test_simulated_trajectory_equals_oracle():
    states, h = states_of(), SYSTEM.time_step
    times = np.array([0, 3 * h, 5.5 * h])  # 0, 3 and 3 steps; the last of 2.5 h / 3
    paths = SYSTEM.simulate(states, times, np.random.default_rng(2), keep_states=True)
    rng = np.random.default_rng(2).spawn(1)[0]
    middle = oracle(states, 0, 12, "ghost", 3, h, rng)
    last = oracle(middle, 0, 12, "ghost", 3, 2.5 * h / 3, rng)
    expected = np.stack([states, middle, last], axis=1)
    np.testing.assert_allclose(paths.states, expected, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(paths.observables, expected.mean(axis=2), atol=ROUNDING)


@each_region
def test_compiled_kernel_equals_python(start, stop, boundary):
    results = []
    for kernel in (euler_maruyama_inplace, euler_maruyama_inplace.py_func):
        x, rng = states_of(), np.random.default_rng(2)
        kernel(x, start, stop, boundary == "periodic", 4, 0.02, 3.0, 0.4, 0.1, 1.0, 0.1, rng)
        results.append((x, rng.random()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=0, atol=ROUNDING)
    assert results[0][1] == results[1][1]  # both leave the generator in one state


@pytest.mark.parametrize("start", [0, 4, 8])
def test_one_step_of_ghost_patch_equals_marginal_of_full_step(start):
    # paper App. E, q = q^: the same noise array, of which the patch uses its own cells' part
    states, h = states_of(1), SYSTEM.time_step
    full = SYSTEM.evolve_patch(states, patch_of(0, 12), h, np.random.default_rng(2))

    def partial(boundary, steps=1):
        rng = np.random.default_rng(2)
        rng.standard_normal(2 * start)
        return SYSTEM.evolve_patch(states, patch_of(start, start + 4, boundary), steps * h, rng)

    patch = slice(start, start + 4)
    np.testing.assert_array_equal(partial("ghost")[:, patch], full[:, patch])
    # planted errors are seen: the ghost cells lost, and a second step (the outside then has moved)
    assert np.abs(partial("periodic")[:, patch] - full[:, patch]).max() > 1e-3
    two = SYSTEM.evolve_patch(states, patch_of(0, 12), 2 * h, np.random.default_rng(2))
    assert np.abs(partial("ghost", 2)[:, patch] - two[:, patch]).max() > 1e-4


def test_deterministic_limit_converges_to_scipy_at_first_order():
    times = np.array([1.0, 5.0])
    start = PAPER.wave(0.5, 0.15)
    exact = PredatorPreyExact(n_cells=40).without_noise(start[0], times)
    errors = []
    for time_step in (0.02, 0.01, 0.005):
        quiet = dataclasses.replace(PAPER, noise=1e-12, time_step=time_step)
        run = quiet.simulate(start, times, np.random.default_rng(3), keep_states=True)
        errors.append(np.abs(run.states[0] - exact).max())
    ratios = np.array(errors[:-1]) / errors[1:]
    # first order: halving h halves the error, up to terms of the next order
    np.testing.assert_allclose(ratios, 2, atol=0.1)
    assert errors[-1] < 0.01


def spectrum_z_scores(system, exact):
    """Mode covariances of 2000 stationary states against the exact ones of the scheme, (n, 3)."""
    start = np.tile(exact.fixed_point, (2000, system.n_cells, 1))
    run = system.simulate(start, np.array([25.0]), np.random.default_rng(4), keep_states=True)
    modes = dct(run.states[:, 0] - exact.fixed_point, axis=1, norm="ortho")
    covariances = exact.mode_covariances(system.time_step)
    scores = []
    for i, j in ((0, 0), (0, 1), (1, 1)):
        products = modes[:, :, i] * modes[:, :, j]
        error = products.std(axis=0, ddof=1) / np.sqrt(len(products))
        scores.append((products.mean(axis=0) - covariances[:, i, j]) / error)
    return np.array(scores)


def test_stationary_spectrum_equals_lyapunov_solution():
    # noise so small that the next order (s^2 = 1e-6 relative) is far below the statistical 3 %;
    # 48 z-scores, |z| < 4.5: false alarm 3e-4
    quiet = dataclasses.replace(PAPER, n_cells=16, noise=1e-3)
    exact = PredatorPreyExact(n_cells=16, noise=1e-3)
    scores = spectrum_z_scores(quiet, exact)
    assert np.abs(scores).max() < 4.5
    # planted: noise off by a fifth, and no diffusion of predators
    louder = dataclasses.replace(quiet, noise=1.2e-3)
    assert np.abs(spectrum_z_scores(louder, exact)).max() > 8
    still = dataclasses.replace(quiet, predator_diffusion=0.0)
    assert np.abs(spectrum_z_scores(still, exact)).max() > 8


def test_exact_mean_covariance_is_mode_zero_over_n():
    exact = PredatorPreyExact(n_cells=50)
    np.testing.assert_allclose(exact.mean_covariance(), exact.mode_covariances()[0] / 50)
    # by hand for J = [[-b, -b], [g, 0]]: P_uv = -s^2 / (2 g), P_uu = s^2 (1/b + 1/g) / 2
    g = 3 * 0.6
    expected = 0.02**2 / 2 * np.array([1 / 0.4 + 1 / g, -1 / g]) / 50
    np.testing.assert_allclose(exact.mean_covariance()[0], expected)
    np.testing.assert_allclose(exact.mean_covariance(1e-6), exact.mean_covariance(), rtol=1e-5)


def test_a_density_below_zero_is_reflected():
    # almost extinct prey at strong noise: many steps would go below zero
    system = dataclasses.replace(PAPER, noise=0.5)
    states = np.full((200, 40, 2), 0.01)
    run = system.simulate(states, np.array([1.0, 30.0]), np.random.default_rng(5), keep_states=True)
    assert run.states.min() >= 0
    # the reflected step is |x + h f + s sqrt(h) xi|, as in the oracle
    h = system.time_step
    one = system.evolve_patch(states, patch_of(0, 40, n=40), h, np.random.default_rng(6))
    expected = oracle(states, 0, 40, "ghost", 1, h, np.random.default_rng(6), system)
    np.testing.assert_allclose(one, expected, rtol=0, atol=ROUNDING)
    kicks = np.random.default_rng(6).standard_normal(states.shape)
    assert (0.01 + 0.5 * np.sqrt(h) * kicks < -0.05).mean() > 0.05  # it happened often


def test_no_density_is_reflected_at_default_noise():
    states = PAPER.initial_states(50, np.random.default_rng(7))
    run = PAPER.simulate(
        states, np.arange(0, 30.5, 0.5), np.random.default_rng(8), keep_states=True
    )
    # a cell below zero between records would have to cross 5 standard deviations of 0.02 / 0.9
    assert run.states.min() > 0.05


def test_upsampling_interpolates_between_cell_centres():
    states = states_of(2, 5)
    enlarged = SYSTEM.upsampled(states, 3)
    old, new = (np.arange(5) + 0.5) / 5, (np.arange(15) + 0.5) / 15
    for b, field in np.ndindex(2, 2):
        expected = np.interp(new, old, states[b, :, field])
        np.testing.assert_allclose(enlarged[b, :, field], expected, atol=ROUNDING)


def test_upsampled_and_relaxed_snapshots_have_the_noise_of_the_large_system():
    exact = PredatorPreyExact(n_cells=160)
    small = PAPER.simulate(
        np.tile(exact.fixed_point, (300, 40, 1)), np.array([30.0]), np.random.default_rng(9),
        keep_states=True,
    ).snapshots()  # fmt: skip
    large = PAPER.resized(160)

    def variance(duration):
        relax = None
        if duration:
            relax = LocalRelax(side=40, duration=0.1, stride=40, passes=round(duration / 0.1))
        pool = upsample(small, to=large, count=300, relax=relax, rng=np.random.default_rng(10))
        assert pool.states.shape == (300, 160, 2)
        return pool.states.var(axis=1).mean(axis=0)

    expected = np.diag(exact.cell_covariance())
    # two linear interpolations leave 0.4 of the variance of u, and relaxation restores it
    assert variance(0)[0] < 0.6 * expected[0]
    np.testing.assert_allclose(variance(4.0), expected, rtol=0.06)


CLOSURE_PATCHING = Patching(side=4)


@pytest.mark.parametrize("dimension", [2, 3])
def test_rate_increments_equal_mean_and_covariance_of_sampled_ones(dimension):
    large = Snapshots(states=states_of(40))
    closure = fit_two_field_closure(large, CLOSURE_PATCHING, dimension)
    rates = rate_increments(SYSTEM, large, patching=CLOSURE_PATCHING, closure=closure)
    h, continuations = SYSTEM.time_step, 400  # one step, for which the rates are exact
    sampled, _ = averaged_increments(
        SYSTEM, large, CLOSURE_PATCHING, duration=h, continuations=continuations, closure=closure,
        rng=np.random.default_rng(11),
    )  # fmt: skip
    np.testing.assert_array_equal(sampled.latents, rates.latents)
    # one patch moves K times noisier than the whole: scatter = K Sigma h
    variances = np.einsum("bii->bi", rates.scatters)
    error = np.sqrt(variances / h / continuations)  # K Sigma h over K patches and continuations
    scores = (sampled.means / h - rates.means) / error
    assert np.abs(scores).max() < 4.5  # 40 (2 + d) z-scores: false alarm 1e-3
    assert abs(scores.std() - 1) < 0.2
    expected = rates.scatters.mean(axis=0)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    # 24 000 twin pairs know a variance to 1 %
    sigma = sampled.scatters.mean(axis=0) / h / 3
    np.testing.assert_allclose(sigma / scale, expected / scale, atol=0.04)
    # covariances of observables and closures change their sign from state to state
    known, seen = rates.scatters[:, :2, 2:], sampled.scatters[:, :2, 2:] / h / 3
    for factor in (1.0, 1 / 12):  # planted: a mean over the 12 sites once more
        scores = (np.sign(known) * (seen - factor * known)).mean(axis=(1, 2))
        assert (abs(oracles.z_of_mean(scores, 0)) < 4) == (factor == 1)  # false alarm 6e-5
    wrong = (sampled.means / h - 2 * rates.means) / error
    assert np.abs(wrong).max() > 10  # planted: drift doubled


def test_covariance_of_the_means_is_noise_squared_over_n():
    _, covariance = SYSTEM.rate_moments(states_of(2))
    np.testing.assert_allclose(covariance, np.tile(0.05**2 / 12 * np.eye(2), (2, 1, 1)))


def test_latents_are_means_over_patches():
    states = states_of(5)
    closure = fit_two_field_closure(Snapshots(states=states), CLOSURE_PATCHING, 3)
    z = latent_states(SYSTEM, states, CLOSURE_PATCHING, closure)
    zeta = (states - closure.centre) / closure.scale
    zeta = zeta[..., 0] + 1j * zeta[..., 1]
    square = np.square(zeta).mean(axis=1)
    expected = [square.imag, square.real, np.square(np.abs(zeta)).mean(axis=1)]
    np.testing.assert_allclose(z[:, 2:], np.stack(expected, axis=1))
    np.testing.assert_allclose(z[:, :2], states.mean(axis=1))


def test_patching_splits_the_lattice_and_not_the_fields():
    states = states_of(2)
    parts = CLOSURE_PATCHING.split(states, (12,))
    assert parts.shape == (2, 3, 4, 2)
    np.testing.assert_array_equal(CLOSURE_PATCHING.assemble(parts, (12,)), states)


def test_wave_raises_where_a_density_would_be_negative():
    with pytest.raises(ValueError, match=r"\[m, k\] = \[0.1, 0.2\]: \|k\| must be <= min\(m, 1"):
        PAPER.wave(0.1, 0.2)
    with pytest.raises(ValueError, match=r"\[m, k\] = \[0.9, -0.15\]"):
        PAPER.wave([0.5, 0.9], [0.1, -0.15])
    assert PAPER.wave(0.1, 0.1).min() >= 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_cells": 0}, "n_cells = 0: must be an integer >= 1"),
        ({"a": 0}, "a = 0: must be finite and > 0"),
        ({"b": 0}, "b = 0: must be finite and > 0"),
        ({"b": 1.0}, "b = 1.0: must be < 1"),
        ({"c": -1}, "c = -1: must be finite and >= 0"),
        ({"noise": 0}, "noise = 0: must be finite and > 0"),
        ({"predator_diffusion": -1}, "predator_diffusion = -1: must be"),
        ({"time_step": 1.0}, "time_step = 1.0: must be > 0 and < 0.25, where the explicit"),
    ],
)
def test_system_raises_for_wrong_parameter(changes, message):
    with pytest.raises(ValueError, match=message):
        PredatorPrey(**({"n_cells": 12} | changes))


def test_simulate_raises_for_wrong_states():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"states has shape \(1, 12\): must be \(B, \(12, 2\)\)"):
        SYSTEM.simulate(np.zeros((1, 12)), np.array([1.0]), rng)
    with pytest.raises(ValueError, match=r"states has a minimum of -0.1: densities must be"):
        SYSTEM.simulate(np.full((1, 12, 2), -0.1), np.array([1.0]), rng)


def test_divergence_raises_with_the_last_good_state():
    # the explicit scheme cannot follow densities of 10^4: they explode within some steps
    with pytest.raises(DivergedError, match="PredatorPrey simulation became non-finite") as caught:
        SYSTEM.simulate(np.full((1, 12, 2), 1e4), np.array([1.0]), np.random.default_rng(0))
    assert np.isfinite(caught.value.state).all()


def test_faster_rates_get_a_shorter_default_step():
    assert PAPER.time_step == 0.01
    assert dataclasses.replace(PAPER, c=20.0, time_step=None).time_step == pytest.approx(0.2 / 84)


def test_resized_system_keeps_physics():
    assert SYSTEM.resized(30) == dataclasses.replace(SYSTEM, n_cells=30)
