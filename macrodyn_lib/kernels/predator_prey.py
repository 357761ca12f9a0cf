"""Euler-Maruyama steps of the stochastic predator-prey reaction-diffusion system."""

import math

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def euler_maruyama_inplace(
    fields: np.ndarray,
    start: int,
    stop: int,
    wrapped: bool,
    n_steps: int,
    time_step: float,
    growth: float,
    threshold: float,
    prey_diffusion: float,
    predator_diffusion: float,
    noise: float,
    rng: np.random.Generator,
) -> None:
    """Evolve cells ``start`` to ``stop - 1`` of each replica; the others stay frozen.

    u += h [u (1 - u - v) + c (u_left - 2 u + u_right)] + s sqrt(h) xi
    v += h [a v (u - b) + D (v_left - 2 v + v_right)] + s sqrt(h) xi'
    then u, v -> |u|, |v|: a density below zero is reflected. A cell at an end of the domain sees
    itself there (Neumann); ``wrapped`` joins the patch's two ends to each other instead.
    fields (B, n, 2) float64, changed. Draws: replica, step, cell, u then v.
    """
    n_cells = fields.shape[1]
    amplitude = noise * math.sqrt(time_step)
    for replica in range(fields.shape[0]):
        x = fields[replica]
        for _ in range(n_steps):
            first_u, first_v = x[start, 0], x[start, 1]
            if wrapped:
                left_u, left_v = x[stop - 1, 0], x[stop - 1, 1]
            elif start > 0:
                left_u, left_v = x[start - 1, 0], x[start - 1, 1]
            else:
                left_u, left_v = first_u, first_v
            for i in range(start, stop):
                u, v = x[i, 0], x[i, 1]
                if i + 1 < stop:
                    right_u, right_v = x[i + 1, 0], x[i + 1, 1]
                elif wrapped:
                    right_u, right_v = first_u, first_v
                elif stop < n_cells:
                    right_u, right_v = x[stop, 0], x[stop, 1]
                else:
                    right_u, right_v = u, v
                prey = u * (1 - u - v) + prey_diffusion * (left_u - 2 * u + right_u)
                predator = growth * v * (u - threshold)
                predator += predator_diffusion * (left_v - 2 * v + right_v)
                x[i, 0] = abs(u + time_step * prey + amplitude * rng.standard_normal())
                x[i, 1] = abs(v + time_step * predator + amplitude * rng.standard_normal())
                left_u, left_v = u, v
