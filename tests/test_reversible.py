"""The reversible SDE: recovered from known ones, its law and clock against exact results.

z-scores are on fixed seeds and bounded by 4 (false-alarm rate 6e-5).
"""

import dataclasses
import math

import numpy as np
import pytest

from macrodyn_lib import criticality, exact, reversible
from macrodyn_lib.lattice import Patching
from macrodyn_lib.records import IncrementMoments
from macrodyn_lib.reversible import fit_reversible_sde
from macrodyn_lib.rollouts import rollout
from macrodyn_lib.systems.ising import Ising

WIDTH, RATE = 0.3, 0.05  # standard deviation and relaxation rate of m where it is Gaussian


def grid(m=61, r=41):
    z = np.meshgrid(np.linspace(0.005, 1.2, m), np.linspace(-0.4, 0.4, r), indexing="ij")
    return np.stack(z, axis=-1).reshape(-1, 2)


def moments(z, drift, sigma, **changes):
    values = {
        "latents": z,
        "means": drift,
        "scatters": sigma,
        "durations": np.ones(len(z)),
        "counts": np.ones(len(z)),
        "n_patches": 1,
        "scatter_is_noise": True,
    }
    return IncrementMoments(**values | changes)


def gaussian(z):
    """m and r independent, Gaussian, with relaxation rates RATE and 0.2."""
    variance = np.array([WIDTH**2, 0.1**2])
    sigma = np.broadcast_to(np.diag(2 * variance * [RATE, 0.2]), (len(z), 2, 2))
    return -z * [RATE, 0.2], sigma


def coupled(z):
    """V = 3 m^4 - 2 m^2 + 8 (r + m^2 / 4)^2 and a Sigma that depends on z, with a cross term."""
    m, r = z.T
    inner = r + m**2 / 4
    gradient = np.stack([12 * m**3 - 4 * m + 8 * m * inner, 16 * inner], axis=-1)
    mm, rr, mr = 2 + m**2, 3 + r + r**2, 0.5 * m * (1 + r)
    sigma = np.stack([np.stack([mm, mr], -1), np.stack([mr, rr], -1)], -2)
    divergence = np.stack([2 * m + 0.5 * m, 1 + 2 * r + 0.5 * (1 + r)], axis=-1)
    return (divergence - np.einsum("nij,nj->ni", sigma, gradient)) / 2, sigma


@pytest.mark.parametrize("both_signs", [False, True])
def test_known_reversible_sde_is_recovered(both_signs):
    """Mirror images m -> -m stand for the same; without noise the fit is exact."""
    z = grid()
    if both_signs:
        z = z * np.where(np.arange(len(z)) % 2, 1, -1)[:, None] ** [1, 0]
    fitted = fit_reversible_sde(moments(z, *coupled(z)), degree=6, covariance_degree=4)
    inside = np.array([[0.3, 0.1], [-0.3, 0.1], [0.9, -0.2], [-0.05, 0.3]])
    drift, sigma = coupled(inside)
    np.testing.assert_allclose(fitted.drift(inside), drift, atol=1e-8)
    np.testing.assert_allclose(fitted.covariance(inside), sigma, atol=1e-8)
    root = fitted.diffusion(inside)
    np.testing.assert_allclose(root @ root.transpose(0, 2, 1), sigma, atol=1e-8)


def test_noise_scale_divides_the_covariance_by_the_patches():
    """Pairs of K patches scatter K times as much; the law is right with lambda = K, not with 1."""
    z = grid()
    drift, sigma = gaussian(z)
    pairs = moments(z, 0.5 * drift, 0.5 * 9 * sigma, durations=np.full(len(z), 0.5), n_patches=9)
    fitted = fit_reversible_sde(pairs, degree=4, covariance_degree=2)
    np.testing.assert_allclose(fitted.covariance(z[:3]), sigma[:3], rtol=1e-6)
    assert fitted.law().mean(np.square) == pytest.approx(WIDTH**2, rel=2e-3)
    wrong = fit_reversible_sde(pairs, degree=4, covariance_degree=2, noise_scale=1)
    assert wrong.law().mean(np.square) > 2 * WIDTH**2


def test_law_and_clock_of_a_gaussian_process_are_exact():
    """The autocorrelation of |m| of an Ornstein-Uhlenbeck process, r = exp(-t RATE):
    [sqrt(1 - r^2) + r asin r - 1] / (pi / 2 - 1)."""
    z = grid()
    fitted = fit_reversible_sde(moments(z, *gaussian(z)), degree=6, covariance_degree=2)
    law = fitted.law()
    assert law.mean(np.square) == pytest.approx(WIDTH**2, rel=2e-3)  # 1.2 is four widths
    assert law.mean(np.abs) == pytest.approx(WIDTH * math.sqrt(2 / math.pi), rel=1e-3)
    assert law.mean_r == pytest.approx(0, abs=1e-6)

    def correlation(t):
        r = math.exp(-RATE * t)
        return (math.sqrt(1 - r * r) + r * math.asin(r) - 1) / (math.pi / 2 - 1)

    low, high = 0.0, 100.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if correlation(middle) > math.exp(-1) else (low, middle)
    for cells in ((60, 45), (120, 90), (180, 135)):  # the grid ends at four widths: 0.3 %
        assert fitted.relaxation_time(cells) == pytest.approx(low, rel=0.005)


def noisy(rng, records=30_000):
    """Records from the Gaussian law, merged in the cells of a grid, each with noise as its rate."""
    z = grid(81, 41)
    density = np.exp(-np.square(z / [WIDTH, 0.1]).sum(axis=1) / 2)
    counts = rng.poisson(records * density / density.sum())
    z, counts = z[counts > 0], counts[counts > 0].astype(float)
    drift, sigma = gaussian(z)
    noise = np.sqrt(sigma[:, [0, 1], [0, 1]] / counts[:, None]) * rng.standard_normal(z.shape)
    return moments(z, drift + noise, sigma, counts=counts)


def test_noise_digs_no_wells_at_the_edge_of_the_data(monkeypatch):
    """Plain least squares of degree 20 puts the law where hardly a record is, for some seeds."""
    exact_mean = WIDTH * math.sqrt(2 / math.pi)

    def means():
        pools = [noisy(np.random.default_rng(seed)) for seed in range(12)]
        fits = [fit_reversible_sde(pool, covariance_degree=2) for pool in pools]
        return np.array([fitted.law().mean(np.abs) for fitted in fits]) / exact_mean

    ridged = means()
    score = (ridged.mean() - 1) / (ridged.std(ddof=1) / math.sqrt(12))
    assert abs(score) < 5.5  # Student's t of 11 degrees of freedom: 2e-4
    assert np.abs(ridged - 1).max() < 0.1
    monkeypatch.setattr(reversible, "_most_probable", reversible._least_squares)
    assert np.abs(means() - 1).max() > 1


def test_ridge_has_the_highest_evidence():
    """Against the likelihood of the data themselves, normal with covariance ~ 1 + X X' / a."""
    rng = np.random.default_rng(1)
    design = rng.standard_normal((30, 6)) * [3, 1, 1, 0.3, 0.1, 0.01]
    target = design @ rng.standard_normal(6) + rng.standard_normal(30)

    def evidence(ridge):
        covariance = np.eye(30) + design @ design.T / ridge
        variance = target @ np.linalg.solve(covariance, target) / 30
        return -15 * math.log(variance) - np.linalg.slogdet(covariance)[1] / 2

    ridges = np.geomspace(1e-3, 1e2, 2001)
    best = ridges[np.argmax([evidence(ridge) for ridge in ridges])]
    expected = np.linalg.solve(design.T @ design + best * np.eye(6), design.T @ target)
    np.testing.assert_allclose(reversible._most_probable(design, target), expected, rtol=0.01)


def test_rollouts_have_the_law_of_the_potential():
    z = grid()
    fitted = fit_reversible_sde(moments(z, *coupled(z)), degree=6, covariance_degree=4)
    start = np.zeros((400, 2))
    paths = rollout(fitted, start=start, times=np.array([20.0, 25.0]), max_step=0.005,
                    rng=np.random.default_rng(0))  # fmt: skip
    absolute = np.abs(paths[:, -1, 0])
    score = (absolute.mean() - fitted.law().mean(np.abs)) / (absolute.std() / 20)
    assert abs(score) < 4
    assert (np.abs(paths) < 3).all()


def test_paths_are_led_back_to_the_data():
    z = grid()
    fitted = fit_reversible_sde(moments(z, *gaussian(z)), degree=6, covariance_degree=2)
    far = np.array([[5.0, 0.0], [-5.0, 0.0], [0.1, 3.0]])
    assert (fitted.drift(far) * far)[[0, 1, 2], [0, 0, 1]].max() < -1
    np.testing.assert_allclose(fitted.covariance(far)[0], fitted.covariance(z[-1:])[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scatter_is_noise": False}, "scatter_is_noise = False: Sigma needs rates or twins"),
        (
            {
                "latents": np.ones((4, 1)),
                "means": np.ones((4, 1)),
                "scatters": np.ones((4, 1, 1)),
                "durations": np.ones(4),
                "counts": np.ones(4),
            },
            "moments has 1 latents: must be 2",
        ),
    ],
)
def test_other_moments_are_refused(changes, message):
    z = grid(5, 5)
    with pytest.raises(ValueError, match=message):
        fit_reversible_sde(moments(z, *gaussian(z), **changes))


def hot_rates():
    """Rates of a 32 x 32 lattice above the critical temperature, in tiles of 16 x 16."""
    system, rng = Ising(side=32, temperature=2.6, field=0.0), np.random.default_rng(4)
    tiles = Patching(side=16, stride=8).patches(system.lattice_shape, periodic=True)
    states = system.relax_patches(system.initial_states(2048, rng), tiles * 40, 1.0, rng)
    snapshots = criticality.Snapshots(states=states, groups=np.arange(2048))
    return system, criticality.relaxing_rates(system, snapshots, 16, 60, rng)[1]


def test_learned_law_of_rates_has_the_exact_energy():
    """Kaufman's energy of the lattice; a drift 5 % too strong is seen."""
    system, rates = hot_rates()
    kaufman = float(exact.domain_wall_density(exact.kaufman_energy(32, 2.6)))

    def score(moments):
        rho = criticality.law_estimates(moments, system)["rho"]
        return (rho.value - kaufman) / rho.standard_error

    assert abs(score(rates)) < 4
    # the potential of rho alone is nearly harmonic: push its drift, and its mean moves
    pushed = rates.means + 0.05 * np.abs(rates.means).mean(axis=0)
    assert abs(score(dataclasses.replace(rates, means=pushed))) > 6
