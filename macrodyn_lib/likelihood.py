"""The paper's claim behind its own door: one patch moves K times noisier than the whole."""

import torch
from torch import Tensor


def negative_log_likelihood(
    means: Tensor,
    durations: Tensor,
    drift: Tensor,
    cholesky: Tensor,
    *,
    noise_scale: float,
    scatter_roots: Tensor | None = None,
    scatter_is_noise: bool = False,
) -> Tensor:
    """Gaussian one-step loss of patch increments with covariance C = lambda Sigma dt, lambda = K.

        loss = r' C^-1 r + tr(C^-1 W) + log det C,    r = mean - mu dt,   Sigma = L L'

    for increments merged to their mean and scatter W = G G' (W = 0 for a single pair). With
    ``scatter_is_noise`` (twins) W alone fits Sigma: the residual, which also holds the spread of
    the drift between patches, is weighed with C but does not move it.

    Args:    means: (N, d).  durations: (N,), > 0.  drift: (N, d).  cholesky L: (N, d, d), lower
             triangular with a positive diagonal.  noise_scale: lambda > 0.
             scatter_roots G: (N, d, d).
    Returns: (N,), twice the negative log-likelihood in nats less the constant d log 2 pi.
    Raises:  ValueError: a duration or the noise scale is not positive.
    Source:  paper Eq. 7 and App. C.
    """
    if not noise_scale > 0:
        raise ValueError(f"noise_scale = {noise_scale}: must be > 0")
    if not bool((durations > 0).all()):
        raise ValueError(f"durations has a minimum of {durations.min():g}: all must be positive")
    variance = noise_scale * durations  # (N,)
    residual = (means - drift * durations[:, None]).unsqueeze(-1)  # (N, d, 1)
    root = cholesky.detach() if scatter_is_noise else cholesky
    loss = _squares(root, residual) / variance + _log_determinant(cholesky, variance)
    if scatter_roots is not None:
        loss = loss + _squares(cholesky, scatter_roots) / variance
    return loss


def _squares(cholesky: Tensor, columns: Tensor) -> Tensor:
    """|L^-1 R|^2 summed over rows and columns of R, (N,); no matrix is inverted."""
    if cholesky.shape[-1] == 1:
        return (columns / cholesky).square().sum(dim=(1, 2))
    solved = torch.linalg.solve_triangular(cholesky, columns, upper=False)
    return solved.square().sum(dim=(1, 2))


def _log_determinant(cholesky: Tensor, variance: Tensor) -> Tensor:
    diagonal = cholesky.diagonal(dim1=1, dim2=2)
    return 2 * diagonal.log().sum(dim=1) + diagonal.shape[1] * variance.log()
