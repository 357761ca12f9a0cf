"""Euler-Maruyama steps of the boundary-driven linear chain."""

import math

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def euler_maruyama_inplace(
    positions: np.ndarray,
    start: int,
    stop: int,
    wrapped: bool,
    n_steps: int,
    time_step: float,
    friction: float,
    coupling: float,
    noise: float,
    force: float,
    rng: np.random.Generator,
) -> None:
    """Evolve particles ``start`` to ``stop - 1`` of each replica; the others stay frozen.

    X_i += h [-g X_i + k (X_{i-1} - X_i) + k (X_{i+1} - X_i) + F 1(i = 0)] + s sqrt(h) xi.
    A particle at an end of the chain lacks that neighbour; ``wrapped`` joins the patch's two ends
    to each other instead. positions (B, N) float64, changed. Draws: replica, step, particle.
    """
    n_particles = positions.shape[1]
    amplitude = noise * math.sqrt(time_step)
    for replica in range(positions.shape[0]):
        x = positions[replica]
        for _ in range(n_steps):
            first = x[start]
            if wrapped:
                left = x[stop - 1]
            elif start > 0:
                left = x[start - 1]
            else:
                left = first
            for i in range(start, stop):
                here = x[i]
                if i + 1 < stop:
                    right = x[i + 1]
                elif wrapped:
                    right = first
                elif stop < n_particles:
                    right = x[stop]
                else:
                    right = here
                drift = -friction * here + coupling * (left - here) + coupling * (right - here)
                if i == 0:
                    drift += force
                x[i] = here + time_step * drift + amplitude * rng.standard_normal()
                left = here
