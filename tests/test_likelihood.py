"""The Gaussian one-step loss with covariance K Sigma dt (paper Eq. 7) against SciPy."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from macrodyn_lib.likelihood import negative_log_likelihood
from macrodyn_lib.records import IncrementMoments, LatentPairs

each_dimension = pytest.mark.parametrize("d", [1, 2, 3, 4])


def random_case(d, count=7, seed=0):
    """Increments, durations, drift and lower triangular L of random pairs, as tensors."""
    rng = np.random.default_rng(seed)
    cholesky = np.tril(rng.normal(size=(count, d, d)))
    diagonal = np.arange(d)
    cholesky[:, diagonal, diagonal] = 0.2 + rng.random((count, d))
    arrays = (
        rng.normal(size=(count, d)),
        rng.uniform(0.01, 2, count),
        rng.normal(size=(count, d)),
        cholesky,
    )
    return tuple(map(torch.from_numpy, arrays))


@each_dimension
@pytest.mark.parametrize("noise_scale", [1.0, 16.0, 0.3])
def test_loss_equals_scipy_normal(d, noise_scale):
    increments, durations, drift, cholesky = case = random_case(d)
    losses = negative_log_likelihood(*case, noise_scale=noise_scale)
    assert losses.shape == (7,)
    for index, dt in enumerate(durations.numpy()):
        sigma = (cholesky[index] @ cholesky[index].T).numpy()
        log_density = multivariate_normal.logpdf(
            increments[index].numpy(), drift[index].numpy() * dt, noise_scale * dt * sigma
        )
        expected = -2 * log_density - d * np.log(2 * np.pi)
        assert losses[index].item() == pytest.approx(expected, rel=1e-10, abs=1e-10)


@each_dimension
def test_merged_moments_have_total_loss_of_raw_pairs(d):
    rng = np.random.default_rng(1)
    owners = rng.integers(0, 5, 40)  # five latents, eight pairs each on average
    pairs = LatentPairs(
        latents=rng.normal(size=(5, d))[owners],
        increments=rng.normal(size=(40, d)),
        durations=rng.uniform(0.1, 1, 5)[owners],
        n_patches=3,
    )
    weights = torch.from_numpy(rng.normal(size=(d, d)))
    root = random_case(d)[3][0]

    def losses(latents, increments, durations, **scatter):
        drift = torch.from_numpy(np.array(latents)) @ weights
        arrays = (torch.from_numpy(np.array(array)) for array in (increments, durations))
        cholesky = root.expand(len(drift), -1, -1)
        return negative_log_likelihood(*arrays, drift, cholesky, noise_scale=3.0, **scatter)

    raw = losses(pairs.latents, pairs.increments, pairs.durations).sum().item()
    moments = IncrementMoments.of(pairs)
    assert len(moments.latents) == 5 and moments.counts.sum() == 40
    values, vectors = np.linalg.eigh(moments.scatters)
    roots = torch.from_numpy(vectors * np.sqrt(np.maximum(values, 0))[:, None, :])
    merged = losses(moments.latents, moments.means, moments.durations, scatter_roots=roots)
    assert (merged.numpy() @ moments.counts).item() == pytest.approx(raw, rel=1e-10)
    without_scatter = losses(moments.latents, moments.means, moments.durations)
    assert abs(without_scatter.numpy() @ moments.counts - raw) > 1  # planted: scatter forgotten


def gradients(case, **options):
    """Loss summed over pairs, and its gradients by drift and by L."""
    increments, durations, drift, cholesky = case
    drift, cholesky = drift.clone().requires_grad_(), cholesky.clone().requires_grad_()
    loss = negative_log_likelihood(
        increments, durations, drift, cholesky, noise_scale=2.0, **options
    ).sum()
    return loss.item(), *torch.autograd.grad(loss, (drift, cholesky))


@each_dimension
def test_scatter_is_noise_lets_scatter_alone_fit_the_covariance(d):
    case = random_case(d)
    roots = random_case(d, seed=1)[3]
    loss, by_drift, by_root = gradients(case, scatter_roots=roots)
    twin_loss, twin_by_drift, twin_by_root = gradients(
        case, scatter_roots=roots, scatter_is_noise=True
    )
    # the value and the force on the drift are the same ...
    assert twin_loss == pytest.approx(loss, rel=1e-12)
    torch.testing.assert_close(twin_by_drift, by_drift)
    # ... and L feels what it would feel without any residual
    _, durations, drift, cholesky = case
    no_residual = (drift * durations[:, None], durations, drift, cholesky)
    torch.testing.assert_close(twin_by_root, gradients(no_residual, scatter_roots=roots)[2])
    assert not torch.allclose(twin_by_root, by_root)


@each_dimension
def test_loss_is_stationary_where_k_sigma_dt_is_the_scatter(d):
    _, durations, drift, roots = random_case(d)
    cholesky = roots / (2.0 * durations[:, None, None]).sqrt()  # noise scale 2
    no_residual = (drift * durations[:, None], durations, drift, cholesky)
    _, _, by_root = gradients(no_residual, scatter_roots=roots, scatter_is_noise=True)
    assert by_root.tril().abs().max() < 1e-10
    lost = (drift * durations[:, None], durations, drift, cholesky * 2**0.5)  # planted: K lost
    assert gradients(lost, scatter_roots=roots, scatter_is_noise=True)[2].tril().abs().max() > 0.1


@pytest.mark.parametrize("noise_scale", [0.0, -1.0, float("nan")])
def test_loss_raises_for_wrong_noise_scale(noise_scale):
    with pytest.raises(ValueError, match=f"noise_scale = {noise_scale}: must be > 0"):
        negative_log_likelihood(*random_case(2), noise_scale=noise_scale)


@pytest.mark.parametrize("duration", [0.0, -1.0])
def test_loss_raises_for_wrong_duration(duration):
    increments, durations, drift, cholesky = random_case(2)
    durations[3] = duration
    with pytest.raises(ValueError, match=f"durations has a minimum of {duration:g}"):
        negative_log_likelihood(increments, durations, drift, cholesky, noise_scale=1.0)
