"""Finite-size scaling: exponents of synthetic data and of small lattices by cluster updates."""

import dataclasses

import numpy as np
import pytest

from macrodyn_lib.exact import ISING_CRITICAL_TEMPERATURE
from macrodyn_lib.pipeline import cluster_estimates
from macrodyn_lib.statistics import FiniteSizeData, fit_exponents, levels_and_slopes
from macrodyn_lib.systems.ising import Ising

# nobody's exponents, so that no default can pass for a result
TRUE = {"beta_over_nu": 0.2, "gamma_over_nu": 1.5, "nu": 0.9, "critical_temperature": 3.0}
SIZES = np.array([16, 32, 48, 64, 128])
NOISE = {"abs_magnetization": 1e-3, "susceptibility": 5e-3, "binder": 1.5e-3}


def synthetic(rng=None, temperatures=(2.98, 2.99, 3.0, 3.01, 3.02)):
    """Pure scaling functions of x = (T - Tc) L^(1/nu), as wide as those of the Ising model."""
    t = np.array(temperatures)
    x = (t - TRUE["critical_temperature"]) * SIZES[:, None] ** (1 / TRUE["nu"])
    values = {
        "abs_magnetization": SIZES[:, None] ** -TRUE["beta_over_nu"]
        * np.exp(-0.6 * np.tanh(x / 4)),
        "susceptibility": SIZES[:, None] ** TRUE["gamma_over_nu"]
        * np.exp(0.2 * np.tanh(x / 4) - 0.01 * x**2),
        "binder": 0.6 - 0.16 * np.tanh(x / 4) - 0.08 * (1 - 1 / np.cosh(x / 4)),
    }
    scales = {"abs_magnetization": values["abs_magnetization"],
              "susceptibility": values["susceptibility"], "binder": np.ones_like(x)}  # fmt: skip
    errors = {name: NOISE[name] * scales[name] for name in NOISE}
    data = FiniteSizeData(sizes=SIZES, temperatures=t, **values, errors=errors)
    return data if rng is None else data.resampled(rng)


def scores(data, rng, tc=TRUE["critical_temperature"]):
    found = fit_exponents(data, critical_temperature=tc, rng=rng, resamples=40)
    return {
        name: (estimate.value - TRUE[name.removeprefix("collapse.")]) / estimate.standard_error
        for name, estimate in found.items()
    }


def test_known_exponents_are_recovered_within_their_errors():
    """Of 12 noisy sets z has mean 0 within 4 / sqrt 12 and a width near 1, for each exponent.

    The bias of the polynomials allows half a standard error more. chi^2 of 11 degrees of freedom
    lies between 1.5 and 35 but for 1 in 2000 (and so does its share of bootstrap noise).
    """
    rng = np.random.default_rng(3)
    draws = [scores(synthetic(rng), rng) for _ in range(12)]
    for name in draws[0]:
        z = np.array([draw[name] for draw in draws])
        assert abs(z.mean()) < 4 / np.sqrt(12) + 0.5, name
        assert 1.5 < np.square(z - z.mean()).sum() < 35, name


def test_a_wrong_critical_temperature_is_seen():
    """Half a grid step off, the levels do not lie on a power law of the true exponents any more."""
    rng = np.random.default_rng(4)
    z = scores(synthetic(rng), rng, tc=TRUE["critical_temperature"] + 0.005)
    assert max(abs(z["beta_over_nu"]), abs(z["gamma_over_nu"])) > 6
    assert abs(z["critical_temperature"]) < 4  # the collapse finds its own


def test_levels_and_slopes_of_noise_free_data():
    magnetization, response, slope = levels_and_slopes(synthetic(), TRUE["critical_temperature"])
    logs = np.log(SIZES)
    np.testing.assert_allclose(magnetization[:, 0], -TRUE["beta_over_nu"] * logs, atol=2e-3)
    np.testing.assert_allclose(response[:, 0], TRUE["gamma_over_nu"] * logs, atol=2e-2)
    np.testing.assert_allclose(slope[:, 0], 0.04 * SIZES ** (1 / TRUE["nu"]), rtol=0.04)
    assert (magnetization[:, 1] > 0).all() and (slope[:, 1] > 0).all()


def test_errors_of_levels_and_slopes_are_those_of_repetition():
    rng = np.random.default_rng(5)
    repeated = np.array([levels_and_slopes(synthetic(rng), 3.0) for _ in range(300)])[..., 0]
    stated = np.array(levels_and_slopes(synthetic(), 3.0))[..., 1]
    # the standard deviation of 300 is known to 4 %; weights differ a little between draws
    np.testing.assert_allclose(repeated.std(axis=0), stated, rtol=0.2)


def test_temperatures_far_away_do_not_count():
    """At L = 128 only three temperatures are within |T - Tc| L <= 3."""
    data = synthetic(temperatures=(2.95, 2.98, 3.0, 3.02, 3.05))
    spoilt = data.abs_magnetization.copy()
    spoilt[-1, [0, -1]] = 0.9
    before = levels_and_slopes(data, 3.0)[0][-1]
    after = levels_and_slopes(dataclasses.replace(data, abs_magnetization=spoilt), 3.0)[0][-1]
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"binder": np.ones((2, 2))}, "binder has shape"),
        ({"sizes": SIZES[:1]}, "1 sizes, 5 temperatures"),
        ({"errors": {name: np.zeros((5, 5)) for name in NOISE}}, "must be > 0 everywhere"),
    ],
)
def test_wrong_data_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(synthetic(), **changes)


def test_small_lattices_have_the_exponents_of_the_ising_model():
    """Cluster updates, 8 to 24 sites an edge: exact exponents within 4 standard errors and what
    corrections to scaling of such sizes do (2 % of gamma/nu, a tenth of it of beta/nu)."""
    rng = np.random.default_rng(6)
    sizes, temperatures = np.array([8, 16, 24]), np.array([2.22, 2.27, 2.32])
    names = tuple(NOISE)
    estimates = []
    for side in sizes:
        for temperature in temperatures:
            system = Ising(side=int(side), temperature=float(temperature), field=0.0)
            chains = system.wolff_chains(32, 200, rng, clusters=5, warm_up=20)
            found = cluster_estimates(chains, system)
            estimates.append([(found[n].value, found[n].standard_error) for n in names])
    table = np.array(estimates).reshape(3, 3, 3, 2)
    data = FiniteSizeData(
        sizes=sizes,
        temperatures=temperatures,
        **{name: table[:, :, k, 0] for k, name in enumerate(names)},
        errors={name: table[:, :, k, 1] for k, name in enumerate(names)},
    )
    found = fit_exponents(
        data, critical_temperature=ISING_CRITICAL_TEMPERATURE, rng=rng, resamples=60
    )
    for name, exact, allowed in (("beta_over_nu", 1 / 8, 0.003), ("gamma_over_nu", 7 / 4, 0.03)):
        estimate = found[name]
        assert abs(estimate.value - exact) < allowed + 4 * estimate.standard_error, name
        assert estimate.standard_error < 0.05 * exact
