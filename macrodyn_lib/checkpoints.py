"""Checkpoints: tensors and a JSON description in one file; reading one runs no code from it."""

import contextlib
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from macrodyn_lib.errors import CheckpointError

# what reading a file that is no checkpoint, or a damaged one, can raise
UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    AssertionError,
    AttributeError,
    struct.error,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


def write_checkpoint(
    path: str | Path, format_name: str, description: Mapping[str, Any], state: Mapping[str, Tensor]
) -> None:
    """Write the format's name and version, a description for JSON, and tensors by their names.

    Complete or not at all: to a temporary name, then renamed.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    content = {"format": format_name, "description": json.dumps(description), "state": dict(state)}
    try:
        torch.save(content, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def open_checkpoint(
    path: str | Path, format_name: str
) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Description and tensors of a checkpoint; what goes wrong while they are used is its fault.

    Raises: CheckpointError: not a checkpoint, truncated, of another format version, or its tensors
            do not fit its description.
    """
    try:
        content = torch.load(path, weights_only=True)
        if not isinstance(content, dict) or content.get("format") != format_name:
            raise CheckpointError(f"{path}: not a checkpoint of format {format_name}")
        yield json.loads(content["description"]), content["state"]
    except (CheckpointError, FileNotFoundError, PermissionError):
        raise
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({type(error).__name__}: {reason[:120]})"
        ) from None
