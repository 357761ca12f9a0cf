"""The exceptions a user can meet; a message names the argument, its value and what is allowed."""

import numpy as np


class ParameterError(ValueError):
    """A notebook parameter or sweep entry is unknown or out of range."""


class CheckpointError(ValueError):
    """A file is not a readable checkpoint of this version."""


class DivergedError(RuntimeError):
    """A loss or a path became non-finite; carries where, and the last good state.

    Attributes:
        step:  index of the first bad step.
        state: last finite state (array), for inspection.
    """

    def __init__(self, what: str, step: int, state: np.ndarray):
        super().__init__(f"{what} became non-finite at step {step}")
        self.step, self.state = step, state


class WeightsError(ValueError):
    """Weights of a network are damaged, of other shapes, or not the ones asked for."""


class WeightsNotFoundError(FileNotFoundError):
    """Weights of a network are not at hand and cannot be fetched."""
