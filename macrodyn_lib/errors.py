"""The exceptions a user can meet; a message names the argument, its value and what is allowed."""

from pathlib import Path

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
        saved: file that holds ``state``, when it was written to disk.
    """

    def __init__(self, what: str, step: int, state: np.ndarray, saved: Path | None = None):
        where = f"; last good state saved in {saved}" if saved is not None else ""
        super().__init__(f"{what} became non-finite at step {step}{where}")
        self.step, self.state, self.saved = step, state, saved
