"""Ising: closed equilibrium formulas, the enumerated chain and the slow simulation of it agree.

z-scores pass for |z| < 4, a false-alarm rate of 6e-5 each; chi-square tests for p > 1e-4, theirs.
"""

import itertools

import numpy as np
import oracles
import pytest
from scipy.linalg import expm
from scipy.special import ellipk

from macrodyn_lib.exact import (
    ISING_CRITICAL_TEMPERATURE,
    IsingExact,
    domain_wall_density,
    kaufman_energy,
    onsager_energy,
    onsager_magnetization,
)

# Sums of up to 2^16 terms of order 1 in float64.
ROUNDING = 1e-12

IN_FIELD = {"temperature": 2.5, "field": 0.1}
SMALL = IsingExact(side=3, **IN_FIELD)
LARGE = IsingExact(side=4, **IN_FIELD)


def energy_of(spins: np.ndarray, field: float) -> float:
    """H of one state, bond by bond."""
    side, energy = len(spins), 0.0
    for row, column in itertools.product(range(side), repeat=2):
        right, down = spins[row, (column + 1) % side], spins[(row + 1) % side, column]
        energy -= spins[row, column] * (int(right) + int(down) + field)
    return energy


def bond_energy(chain: IsingExact) -> float:
    """Stationary energy of the bonds per site."""
    domain_walls = chain.stationary() @ chain.observables()[:, 1]
    return 4 * domain_walls - 2


# Equilibrium without field


# Values computed once with another program, to the digits shown.
@pytest.mark.parametrize(
    ("temperature", "energy"),
    [(2.0, -1.745565), (2.25, -1.463103), (2.27, -1.410864), (2.5, -1.106079), (3.0, -0.817310)],
)
def test_onsager_energy_equals_check_numbers(temperature, energy):
    assert onsager_energy(temperature) == pytest.approx(energy, abs=6e-7)


def test_onsager_energy_equals_formula_of_modulus():
    temperature = np.array([0.5, 1.0, 2.0, 2.2, 2.3, 3.0, 10.0])
    twice = 2 / temperature
    modulus = 2 * np.sinh(twice) / np.cosh(twice) ** 2
    bracket = 1 + 2 / np.pi * (2 * np.tanh(twice) ** 2 - 1) * ellipk(modulus**2)
    # ellipk(m) loses digits as 1 - m tends to 0 with the temperature: exp(-16) at T = 0.5
    np.testing.assert_allclose(onsager_energy(temperature), -bracket / np.tanh(twice), rtol=1e-9)


def test_onsager_energy_is_finite_at_critical_temperature():
    assert pytest.approx(2.269185314213022, rel=1e-15) == ISING_CRITICAL_TEMPERATURE
    assert onsager_energy(ISING_CRITICAL_TEMPERATURE) == pytest.approx(-np.sqrt(2), abs=1e-13)
    # The energy is continuous; its slope 1e-12 away is the specific heat, below 15 there.
    around = ISING_CRITICAL_TEMPERATURE * (1 + np.array([-1e-12, -1e-15, 1e-15, 1e-12]))
    np.testing.assert_allclose(onsager_energy(around), -np.sqrt(2), rtol=0, atol=5e-11)


@pytest.mark.parametrize(
    ("temperature", "magnetization"),
    [(2.0, 0.911319), (2.2, 0.784755), (2.25, 0.671854), (2.26, 0.613371)],
)
def test_onsager_magnetization_equals_check_numbers(temperature, magnetization):
    assert onsager_magnetization(temperature) == pytest.approx(magnetization, abs=6e-7)


def test_onsager_magnetization_vanishes_with_exponent_one_eighth():
    assert onsager_magnetization(ISING_CRITICAL_TEMPERATURE) < 0.02  # rounding to the power 1/8
    assert onsager_magnetization([ISING_CRITICAL_TEMPERATURE + 1e-9, 100.0]).tolist() == [0, 0]
    below = ISING_CRITICAL_TEMPERATURE * (1 - np.array([1e-6, 1e-8]))
    slope = np.diff(np.log(onsager_magnetization(below))) / np.log(1e-2)
    assert slope[0] == pytest.approx(1 / 8, abs=1e-6)


CRITICAL = ISING_CRITICAL_TEMPERATURE
KAUFMAN_TEMPERATURES = np.array([2.25, 2.26, CRITICAL, 2.27, 2.28, 2.29, 2.5])
# Values computed once with another program, by numerical differences, to the digits shown.
KAUFMAN = {
    8: [-1.513377, -1.502069, -1.491589, -1.490656, -1.479145, -1.467548, -1.222321],
    16: [-1.481387, -1.466737, -1.453065, -1.451843, -1.436741, -1.421468, -1.131318],
    32: [-1.468128, -1.450418, -1.433658, -1.432152, -1.413460, -1.394501, -1.107292],
    48: [-1.464953, -1.445679, -1.427179, -1.425508, -1.404700, -1.383636, -1.106144],
    64: [-1.463851, -1.443629, -1.423938, -1.422149, -1.399837, -1.377390, -1.106083],
    128: [-1.463111, -1.441390, -1.419076, -1.417004, -1.391164, -1.366645, -1.106079],
}


@pytest.mark.parametrize("side", KAUFMAN)
def test_kaufman_energy_equals_check_numbers(side):
    energies = kaufman_energy(side, KAUFMAN_TEMPERATURES)
    np.testing.assert_allclose(energies, KAUFMAN[side], rtol=0, atol=6e-7)


@pytest.mark.parametrize("side", [2, 3, 4])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 2.0, CRITICAL, 2.27, 3.0, 10.0])
def test_kaufman_energy_equals_enumeration(side, temperature):
    chain = IsingExact(side=side, temperature=temperature)
    energy = chain.stationary() @ chain.energies() / chain.n_sites
    assert kaufman_energy(side, temperature) == pytest.approx(energy, abs=ROUNDING)


def test_kaufman_energy_tends_to_infinite_lattice():
    # Away from the critical point the correction is of order exp(-L / correlation length).
    assert kaufman_energy(256, 3.0) == pytest.approx(float(onsager_energy(3.0)), abs=1e-12)
    temperatures = np.array([0.01, 0.1, 1.0, 2.0, 2.5, 3.0, 10.0, 100.0])
    np.testing.assert_allclose(
        kaufman_energy(1024, temperatures), onsager_energy(temperatures), rtol=0, atol=1e-10
    )


def test_kaufman_energy_meets_finite_size_scaling_at_critical_temperature():
    # E_L + sqrt 2 = -A / L + O(1 / L^3): with L = 512, 1024 the ratio is 2 to a few 1e-6.
    excess = [float(kaufman_energy(side, CRITICAL)) + np.sqrt(2) for side in (512, 1024)]
    assert excess[0] / excess[1] == pytest.approx(2, abs=1e-4)


def test_kaufman_energy_is_smooth_at_critical_temperature():
    # Z_4 passes through 0 there; a second difference of steps 1e-5 shows any lost term.
    around = CRITICAL + 1e-5 * np.array([-1, 0, 1])
    energies = kaufman_energy(64, around)
    assert abs(np.diff(energies, 2)[0]) < 1e-8
    assert np.diff(energies).min() > 0


def test_functions_of_temperature_keep_shape():
    temperatures = np.array([[2.0, 2.5, 3.0], [1.0, 2.27, 5.0]])
    for function in (onsager_energy, onsager_magnetization, lambda t: kaufman_energy(5, t)):
        values = function(temperatures)
        assert values.shape == (2, 3)
        assert values[1, 1] == function(2.27)


def test_domain_wall_density_equals_mean_observable():
    chain = IsingExact(side=3, temperature=2.0)
    expected = chain.stationary() @ chain.observables()[:, 1]
    assert domain_wall_density(kaufman_energy(3, 2.0)) == pytest.approx(expected, rel=ROUNDING)
    assert domain_wall_density([-2.0, 0.0, 2.0]).tolist() == [0, 0.5, 1]


# Values computed once with another program, to the digits shown.
@pytest.mark.parametrize(
    ("side", "temperature", "log_partition", "energy", "first", "second", "binder", "chi"),
    [
        (2, 2.00, 4.797713747, -1.80082536, 0.93370917, 0.91721201, 0.64148225, 0.09079837),
        (2, 2.27, 4.380953119, -1.69672715, 0.89915494, 0.87412808, 0.62685597, 0.11568015),
        (2, 2.50, 4.113274011, -1.60216752, 0.86783359, 0.83512531, 0.61258281, 0.13118426),
        (3, 2.00, 9.925150371, -1.76767847, 0.92598478, 0.88710010, 0.64212510, 0.13343533),
        (3, 2.27, 9.017920265, -1.61073408, 0.87088845, 0.80917522, 0.62006806, 0.20112635),
        (3, 2.50, 8.456456374, -1.46212242, 0.81686082, 0.73528430, 0.59537453, 0.24488171),
        (4, 2.00, 17.105367119, -1.75538029, 0.91894327, 0.86892168, 0.64481079, 0.19571962),
        (4, 2.27, 15.517954383, -1.56498554, 0.84359741, 0.76099472, 0.61709231, 0.34775779),
        (4, 2.50, 14.561093024, -1.37911648, 0.76471239, 0.65482576, 0.58152766, 0.44826056),
        (4, 5.00, 11.771470359, -0.45613537, 0.34276563, 0.17519948, 0.20785977, 0.18467585),
    ],
)
def test_enumeration_equals_check_numbers(
    side, temperature, log_partition, energy, first, second, binder, chi
):
    chain = IsingExact(side=side, temperature=temperature)
    digits = {"rel": 0, "abs": 6e-9}
    assert chain.log_partition() == pytest.approx(log_partition, rel=0, abs=6e-10)
    assert bond_energy(chain) == pytest.approx(energy, **digits)
    assert chain.absolute_magnetization() == pytest.approx(first, **digits)
    squares = chain.observables()[:, 0] ** 2
    assert chain.stationary() @ squares == pytest.approx(second, **digits)
    assert chain.binder() == pytest.approx(binder, **digits)
    assert chain.susceptibility() == pytest.approx(chi, **digits)


@pytest.mark.parametrize(
    ("side", "energy", "mean", "absolute"),
    [
        (2, -1.60555494, 0.13275211, 0.86902710),
        (3, -1.47623266, 0.25745143, 0.82230465),
        (4, -1.41301695, 0.38934081, 0.78064766),
    ],
)
def test_enumeration_in_field_equals_check_numbers(side, energy, mean, absolute):
    chain = IsingExact(side=side, **IN_FIELD)
    magnetization = chain.observables()[:, 0]
    assert bond_energy(chain) == pytest.approx(energy, rel=0, abs=6e-9)
    assert chain.stationary() @ magnetization == pytest.approx(mean, rel=0, abs=6e-9)
    assert chain.absolute_magnetization() == pytest.approx(absolute, rel=0, abs=6e-9)


def test_enumeration_in_field_equals_check_numbers_of_domain_walls():
    observables = LARGE.observables()
    assert LARGE.stationary() @ observables[:, 0] ** 2 == pytest.approx(0.67530547, abs=6e-9)
    assert LARGE.stationary() @ observables[:, 1] == pytest.approx(0.14674576, abs=6e-9)


# The enumerated chain


@pytest.mark.parametrize("side", [2, 3, 4])
def test_index_and_spins_are_inverse(side):
    chain = IsingExact(side=side, **IN_FIELD)
    spins = chain.spins()
    assert spins.dtype == np.int8 and spins.shape == (2**side**2, side, side)
    np.testing.assert_array_equal(chain.index_of(spins), np.arange(chain.n_states))
    only_second_up = -np.ones((side, side))
    only_second_up[0, 1] = 1  # site 1 in C order is bit 1
    assert chain.index_of(only_second_up) == 2
    assert chain.index_of(spins[:6].reshape(2, 3, side, side)).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("side", [2, 3, 4])
def test_states_equal_sums_over_bonds(side):
    chain = IsingExact(side=side, temperature=1.7, field=0.3)
    spins, energies, rates = chain.spins(), chain.energies(), chain.flip_rates()
    observables = chain.observables()
    for state in np.random.default_rng(1).integers(chain.n_states, size=20):
        energy = energy_of(spins[state], 0.3)
        assert energies[state] == pytest.approx(energy, rel=ROUNDING)
        walls = 0.5 + energy_of(spins[state], 0.0) / (4 * chain.n_sites)
        np.testing.assert_allclose(observables[state], [spins[state].mean(), walls], atol=ROUNDING)
        expected = []
        for site in range(chain.n_sites):
            flipped = spins[state].copy()
            flipped.flat[site] *= -1
            expected.append(1 / (1 + np.exp((energy_of(flipped, 0.3) - energy) / 1.7)))
        np.testing.assert_allclose(rates[state], expected, rtol=ROUNDING)


@pytest.mark.parametrize("side", [2, 3, 4])
def test_generator_obeys_detailed_balance(side):
    chain = IsingExact(side=side, **IN_FIELD)
    generator, stationary = chain.generator(), chain.stationary()
    assert generator.nnz == chain.n_states * (chain.n_sites + 1)
    assert abs(generator.sum(axis=1)).max() < ROUNDING
    assert abs(stationary @ generator).max() < ROUNDING
    flows = generator.multiply(stationary[:, None]).tocsr()
    assert abs(flows - flows.T).max() < ROUNDING * abs(flows).max()
    assert (generator.diagonal() < 0).all()


def test_generator_entry_goes_from_row_to_column():
    # From all down, one flip up against four neighbours and the field: dH = 2 (4 - h).
    chain = IsingExact(side=3, temperature=2.0, field=0.5)
    assert chain.generator()[0, 1] == pytest.approx(1 / (1 + np.exp(3.5)), rel=ROUNDING)
    assert chain.generator()[1, 0] == pytest.approx(1 / (1 + np.exp(-3.5)), rel=ROUNDING)


@pytest.mark.parametrize("chain", [SMALL, LARGE])
def test_rate_moments_equal_generator(chain):
    # Q phi = b, and Q (phi phi^T) - phi b^T - b phi^T = S, the carre du champ.
    generator, phi = chain.generator(), chain.observables()
    drift, covariance = chain.rate_moments()
    np.testing.assert_allclose(drift, generator @ phi, rtol=0, atol=ROUNDING)
    squares = generator @ (phi[:, :, None] * phi[:, None, :]).reshape(-1, 4)
    mixed = phi[:, :, None] * drift[:, None, :]
    expected = squares.reshape(-1, 2, 2) - mixed - mixed.transpose(0, 2, 1)
    np.testing.assert_allclose(covariance, expected, rtol=0, atol=ROUNDING)
    assert np.abs(chain.stationary() @ drift).max() < ROUNDING


def test_rate_moments_equal_site_sums():
    # d_i M = -2 s_i / n and d_i rho = s_i R_i / (2 n), R_i the sum of the neighbours.
    chain, spins = LARGE, LARGE.spins().astype(float)
    neighbours = sum(np.roll(spins, way, axis) for way in (-1, 1) for axis in (1, 2))
    jumps = np.stack([-2 * spins, spins * neighbours / 2], axis=-1).reshape(-1, 16, 2) / 16
    rates, (drift, covariance) = chain.flip_rates(), chain.rate_moments()
    np.testing.assert_allclose(drift, np.einsum("xi,xia->xa", rates, jumps), atol=ROUNDING)
    expected = np.einsum("xi,xia,xib->xab", rates, jumps, jumps)
    np.testing.assert_allclose(covariance, expected, atol=ROUNDING)


def test_means_equal_dense_exponential():
    times = np.array([0.0, 0.1, 0.1, 3.0])
    laws = [np.eye(512)[7] @ expm(SMALL.generator().toarray() * time) for time in times]
    observables = SMALL.observables()
    np.testing.assert_allclose(SMALL.means(7, times), laws @ observables, atol=ROUNDING)
    absolute = np.abs(observables[:, 0])
    np.testing.assert_allclose(SMALL.means(7, times, absolute), laws @ absolute, atol=ROUNDING)
    np.testing.assert_allclose(SMALL.means(np.eye(512)[7], times), laws @ observables, atol=1e-12)


def test_means_average_over_starts():
    start = np.array([3, 3, 500])
    law = np.zeros(512)
    law[[3, 500]] = 2 / 3, 1 / 3
    separate = [SMALL.means(state, [0.0, 0.7]) for state in start]
    np.testing.assert_allclose(
        SMALL.means(start, [0.0, 0.7]), np.mean(separate, axis=0), atol=1e-12
    )
    np.testing.assert_allclose(SMALL.means(law, [0.0, 0.7]), np.mean(separate, axis=0), atol=1e-12)


@pytest.mark.parametrize("chain", [SMALL, LARGE])
def test_means_of_stationary_law_stay(chain):
    stationary = chain.stationary()
    expected = stationary @ chain.observables()
    np.testing.assert_allclose(
        chain.means(stationary, [0.0, 2.0]), [expected, expected], atol=ROUNDING
    )


def test_spins_at_infinite_temperature_decay_independently():
    # Every rate is 1/2 up to 4 / T: M decays as exp(-t), and Sigma_M = 2/n in every state.
    chain = IsingExact(side=4, temperature=1e9)
    times = np.array([0.0, 0.5, 1.0, 2.0])
    start = chain.index_of(np.where(np.arange(16) < 13, 1, -1).reshape(4, 4))
    means = chain.means(start, times, chain.observables()[:, 0])
    np.testing.assert_allclose(means, 10 / 16 * np.exp(-times), rtol=0, atol=1e-8)
    drift, covariance = chain.rate_moments()
    np.testing.assert_allclose(drift[:, 0], -chain.observables()[:, 0], rtol=0, atol=1e-8)
    np.testing.assert_allclose(covariance[:, 0, 0], 2 / 16, rtol=0, atol=1e-8)


# Patches with frozen surroundings

PATCH = np.array([5, 6, 9, 10, 0])  # four sites in the middle and one apart, out of order
SURROUNDINGS = 0b1011_0010_1110_1001


def test_patch_generator_is_restriction_of_generator():
    patch = LARGE.patch_generator(SURROUNDINGS, PATCH)
    states = LARGE.patch_states(SURROUNDINGS, PATCH)
    expected = LARGE.generator()[states][:, states].toarray()
    np.fill_diagonal(expected, 0)
    np.fill_diagonal(expected, -expected.sum(axis=1))
    np.testing.assert_allclose(patch, expected, rtol=0, atol=ROUNDING)


def test_patch_generator_obeys_detailed_balance_among_frozen_sites():
    patch = LARGE.patch_generator(SURROUNDINGS, PATCH)
    assert patch.shape == (32, 32)
    assert np.abs(patch.sum(axis=1)).max() < ROUNDING
    energies = LARGE.energies()[LARGE.patch_states(SURROUNDINGS, PATCH)]
    law = np.exp(-(energies - energies.min()) / LARGE.temperature)
    law /= law.sum()
    flows = law[:, None] * patch
    np.testing.assert_allclose(flows, flows.T, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(law @ patch, 0, rtol=0, atol=ROUNDING)


def test_patch_states_differ_on_patch_alone():
    states = LARGE.patch_states(SURROUNDINGS, PATCH)
    spins = LARGE.spins()[states].reshape(32, 16)
    outside = np.setdiff1d(np.arange(16), PATCH)
    assert (spins[:, outside] == spins[0, outside]).all()
    assert SURROUNDINGS in states
    by_bits = np.array([[1 if pattern >> j & 1 else -1 for j in range(5)] for pattern in range(32)])
    np.testing.assert_array_equal(spins[:, PATCH], by_bits)
    np.testing.assert_array_equal(LARGE.patch_pattern(LARGE.spins()[states], PATCH), np.arange(32))
    from_spins = LARGE.patch_states(LARGE.spins()[SURROUNDINGS], PATCH)
    np.testing.assert_array_equal(from_spins, states)


def test_patch_of_all_sites_has_whole_generator():
    patch = SMALL.patch_generator(17, np.arange(9))
    np.testing.assert_allclose(patch, SMALL.generator().toarray(), rtol=0, atol=ROUNDING)


# The slow simulation of Algorithm 2


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Last states and numbers of events of 3000 oracle runs for a time of 0.8 from all down."""
    rng, start = np.random.default_rng(3), SMALL.spins()[0]
    runs = [oracles.ising_algorithm_2(start, time=0.8, rng=rng, **IN_FIELD) for _ in range(3000)]
    return np.array([spins for spins, _ in runs]), np.array([events for _, events in runs])


def test_algorithm_2_has_exact_means(drawn):
    # 2 z-scores: false alarm 1.3e-4
    samples = SMALL.observables()[SMALL.index_of(drawn[0])]
    hotter = IsingExact(side=3, temperature=3.0, field=0.1)
    assert np.abs(oracles.z_of_mean(samples, SMALL.means(0, [0.8])[0])).max() < 4
    assert np.abs(oracles.z_of_mean(samples, hotter.means(0, [0.8])[0])).min() > 8  # planted


def test_algorithm_2_has_exact_number_of_events(drawn):
    # E[events] = int_0^t E[R(x(s))] ds, by Simpson's rule on 9 points: error below 1e-6.
    times = np.linspace(0, 0.8, 9)
    totals = SMALL.means(0, times, SMALL.flip_rates().sum(axis=1))
    weights = np.array([1, 4, 2, 4, 2, 4, 2, 4, 1]) / 3 * 0.1
    assert abs(oracles.z_of_mean(drawn[1], weights @ totals)) < 4


def test_algorithm_2_of_active_sites_has_law_of_patch():
    sites, start = np.array([4, 1, 5]), SMALL.spins()[300]
    active = np.isin(np.arange(9), sites).reshape(3, 3)
    rng = np.random.default_rng(4)
    runs = [
        oracles.ising_algorithm_2(start, time=1.0, rng=rng, active=active, **IN_FIELD)[0]
        for _ in range(2000)
    ]
    spins = np.array(runs)
    assert (spins[:, ~active] == start[~active]).all()
    generator = SMALL.patch_generator(300, sites)
    before = SMALL.patch_pattern(start, sites)
    patterns = SMALL.patch_pattern(spins, sites)
    assert oracles.p_of_counts(patterns, expm(generator)[before]) > 1e-4
    assert oracles.p_of_counts(patterns, expm(0.7 * generator)[before]) < 1e-6  # planted


def test_algorithm_2_without_active_sites_does_nothing():
    start = SMALL.spins()[5]
    spins, events = oracles.ising_algorithm_2(
        start, 2.0, 0.0, 10.0, np.random.default_rng(5), active=np.zeros((3, 3), dtype=bool)
    )
    np.testing.assert_array_equal(spins, start)
    assert events == 0


# Arguments that are not allowed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("side", 1),
        ("side", 5),
        ("side", 3.0),
        ("temperature", 0.0),
        ("temperature", float("nan")),
        ("field", float("inf")),
    ],
)
def test_chain_raises_when_parameter_not_allowed(name, value):
    with pytest.raises(ValueError, match=f"{name} .*{value!r}.*allowed"):
        IsingExact(**{"side": 3, **IN_FIELD, name: value})


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf"), [2.0, 0.0]])
def test_functions_raise_when_temperature_not_allowed(temperature):
    for function in (onsager_energy, onsager_magnetization, lambda t: kaufman_energy(8, t)):
        with pytest.raises(ValueError, match=r"temperature .*allowed"):
            function(temperature)


@pytest.mark.parametrize("side", [0, 1, 8.0])
def test_kaufman_energy_raises_when_side_not_allowed(side):
    with pytest.raises(ValueError, match=r"side .*allowed"):
        kaufman_energy(side, 2.0)


def test_domain_wall_density_raises_when_energy_not_allowed():
    for energy in (-2.1, 2.1, float("nan")):
        with pytest.raises(ValueError, match=r"energy .*\[-2, 2\]"):
            domain_wall_density(energy)


@pytest.mark.parametrize(
    "start",
    [
        -1,
        512,
        [],
        [[1, 2]],
        np.ones(512),  # no law
        np.ones(512, dtype=int),  # a law or starts?
        np.full(16, 1 / 16),
        np.eye(512)[0] * 2 - np.eye(512)[1],
        True,
    ],
)
def test_means_raise_when_start_not_allowed(start):
    with pytest.raises(ValueError, match=r"start .*allowed"):
        SMALL.means(start, [1.0])


def test_means_raise_when_times_or_functions_not_allowed():
    for times in ([-1.0], [2.0, 1.0], [float("nan")], 1.0):
        with pytest.raises(ValueError, match="times"):
            SMALL.means(0, times)
    with pytest.raises(ValueError, match=r"functions .*\(2, 512\)"):
        SMALL.means(0, [1.0], np.zeros((2, 512)))


@pytest.mark.parametrize("sites", [[], [9], [-1], [1, 1], [0.5], 3, [[1]]])
def test_patch_raises_when_sites_not_allowed(sites):
    with pytest.raises(ValueError, match=r"(?s)sites .*allowed"):
        SMALL.patch_generator(0, sites)


def test_patch_raises_when_state_or_size_not_allowed():
    with pytest.raises(ValueError, match=r"sites .*1 to 12"):
        LARGE.patch_generator(0, np.arange(13))
    with pytest.raises(ValueError, match=r"state .*from 0 to 511"):
        SMALL.patch_generator(512, [0])
    with pytest.raises(ValueError, match=r"state .*one state"):
        SMALL.patch_generator(SMALL.spins()[:2], [0])
    with pytest.raises(ValueError, match=r"spins .*\(..., 3, 3\)"):
        SMALL.patch_generator(np.zeros((3, 3)), [0])
