"""From patch pairs to latent pairs: which increments the SDE is fitted to.

The latent state is z = phi*(x), the given observables; learned closures will join them here.
"""

from macrodyn_lib.records import LatentPairs, PatchPairs


def encode(pairs: PatchPairs) -> LatentPairs:
    """Latent pairs of the method: z = phi(x), Delta z_I of mean mu dt and covariance K Sigma dt.

    Source: paper Eq. 3.
    """
    return LatentPairs(
        latents=pairs.observables,
        increments=pairs.increments,
        twins=pairs.twin_increments,
        durations=pairs.durations,
        n_patches=pairs.n_patches,
        groups=pairs.groups,
    )


def encode_naive(pairs: PatchPairs) -> LatentPairs:
    """Latent pairs of the baseline: the evolved patch is taken for the whole, noise scale 1.

    z_{t+dt} = phi(x_{t+dt,I}) without subtracting phi(x_{t,I}), so that the static difference
    between a patch and the lattice counts as noise. Source: paper Eq. 9 and Sec. III.
    """
    return LatentPairs(
        latents=pairs.observables,
        increments=pairs.patch_observables - pairs.observables,
        durations=pairs.durations,
        n_patches=1,
        groups=pairs.groups,
    )
