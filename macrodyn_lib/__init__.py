"""Learn the macroscopic stochastic dynamics of a large system from simulations of small pieces.

The public names load on first use, so that sampling needs no torch and learning no numba.
"""

import importlib
from typing import Any

_HOME = {
    "Snapshots": "records",
    "Trajectories": "records",
    "PatchPairs": "records",
    "LatentPairs": "records",
    "Patch": "lattice",
    "Patching": "lattice",
    "MicroscopicSystem": "systems.base",
    "LinearChain": "systems.linear_chain",
    "PredatorPrey": "systems.predator_prey",
    "CurieWeiss": "systems.curie_weiss",
    "Ising": "systems.ising",
    "NbMoTa": "systems.nbmota",
    "BarrierModel": "systems.barriers",
    "LocalRelax": "upsampling",
    "upsample": "upsampling",
    "tile_snapshots": "upsampling",
    "relax_ladder": "upsampling",
    "relaxed_initial_states": "upsampling",
    "evolve_patches": "partial_evolution",
    "averaged_increments": "partial_evolution",
    "integrated_increments": "partial_evolution",
    "rate_increments": "partial_evolution",
    "latent_states": "partial_evolution",
    "IncrementMoments": "records",
    "BlockClosure": "closure",
    "fit_block_closure": "closure",
    "AutoencoderSettings": "autoencoder",
    "AutoencoderClosure": "autoencoder",
    "fit_autoencoder": "autoencoder",
    "encode": "closure",
    "encode_naive": "closure",
    "LinearSDE": "sde",
    "MLPSDE": "sde",
    "OnsagerNetSDE": "sde",
    "FittedSDE": "fitting",
    "TrainingSettings": "fitting",
    "fit_sde": "fitting",
    "fit_ensemble": "fitting",
    "ReversibleSDE": "reversible",
    "fit_reversible_sde": "reversible",
    "rollout": "rollouts",
    "stream": "randomness",
    "ParameterError": "errors",
    "CheckpointError": "errors",
    "DivergedError": "errors",
    "WeightsError": "errors",
    "WeightsNotFoundError": "errors",
}
_MODULES = {
    "alloy_study",
    "closure",
    "criticality",
    "exact",
    "pipeline",
    "plotting",
    "statistics",
    "study",
    "widgets",
}

__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"macrodyn_lib.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"macrodyn_lib.{name}")
    raise AttributeError(f"module 'macrodyn_lib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
