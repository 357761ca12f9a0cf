"""Which code, packages, data and machine made a result."""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib

from macrodyn_lib.parallel import thread_count

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("numpy", "scipy", "numba", "torch", "pydantic", "papermill", "matplotlib")
CODE = ("macrodyn_lib", "notebooks/*.py", "requirements.lock")
# What starts and reports the notebooks; the import rules keep it out of them, so that it decides no
# number and its changes make no new version of a result.
AROUND_NOTEBOOKS = {"cli", "execution", "report", "reproduction", "sweeps"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """The code of a run, taken when it begins: later edits on disk are not what it executes."""

    git_commit: str | None
    dirty: bool
    source_hash: str
    notebook_hash: str | None

    @classmethod
    def current(cls, notebook_hash: str | None) -> "Code":
        """The library as it lies on disk now, with a notebook."""
        return cls(
            git_commit=_git("rev-parse", "HEAD"),
            dirty=bool(_git("status", "--porcelain", "--untracked-files=no", "--", *CODE)),
            source_hash=source_hash(),
            notebook_hash=notebook_hash,
        )


def collect(seed: int, code: Code, data: Mapping[str, str]) -> dict[str, Any]:
    """Provenance of a result as results.json has it.

    Args: data: name -> SHA-256 of each data file that the run read.
    """
    return {
        "seed": seed,
        **dataclasses.asdict(code),
        "data": dict(data),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
        "cpus": joblib.cpu_count(),
        "threads": thread_count(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def source_hash() -> str:
    """Hash of every file of the library that can decide a number, data files included."""
    digest = hashlib.sha256()
    library = ROOT / "macrodyn_lib"
    for path in sorted(library.rglob("*")):
        compiled = "__pycache__" in path.parts
        if path.is_file() and not compiled and path.stem not in AROUND_NOTEBOOKS:
            digest.update(path.relative_to(library).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def notebook_hash(content: str) -> str:
    """Hash of a notebook's code; text, outputs and what papermill puts in do not count.

    Raises: ValueError: not a notebook.
    """
    try:
        code = [
            "".join(cell["source"])
            for cell in json.loads(content)["cells"]
            if cell["cell_type"] == "code"
            and "injected-parameters" not in cell["metadata"].get("tags", [])
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a notebook ({error!r})") from None
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()[:12]


def notebook_file_hash(path: Path) -> str | None:
    """The same of a file; None when there is no readable notebook."""
    try:
        return notebook_hash(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def file_hash(path: Path) -> str:
    """SHA-256 of a data file.  Raises: OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def version_of(provenance: Mapping[str, Any]) -> str:
    """The code that made a result, in words; equal words mean equal code.

    By the hashes of library and notebook, whatever the commit; results that have none (of 0.1.0)
    by their commit.
    """
    library, notebook = (provenance.get(f"{what}_hash") for what in ("source", "notebook"))
    if library and notebook:
        return f"library {library[:7]}, notebook {notebook[:7]}"
    return f"commit {commit_of(provenance)}"


def commit_of(provenance: Mapping[str, Any]) -> str:
    """Short name of the commit, and whether there were changes that were not committed."""
    commit = str(provenance.get("git_commit") or "unknown")[:7]
    return f"{commit} with changes" if provenance.get("dirty") else commit


def _git(*arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
