"""Provenance: which code, data and seed made a result, as it was when the run began."""

import hashlib
import json
import shutil
from pathlib import Path

import nbformat
import pytest
from tiny_study import CELLS, NAME, write_notebook

from macrodyn_lib import provenance, study
from macrodyn_lib.provenance import version_of
from macrodyn_lib.study import Results

CHAIN = "01_linear_chain"


def notebook_hash(folder: Path, cells: list[str] = CELLS) -> str:
    write_notebook(folder, cells)
    return provenance.notebook_hash((folder / f"{NAME}.ipynb").read_text())


def test_notebook_hash_follows_the_code_alone(tmp_path: Path) -> None:
    original = notebook_hash(tmp_path)
    path = tmp_path / f"{NAME}.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("Some words"))
    injected = nbformat.v4.new_code_cell("level = 3", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(2, injected)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="3")]
    nbformat.write(notebook, path)
    assert provenance.notebook_file_hash(path) == original
    assert notebook_hash(tmp_path, [*CELLS, "1 + 1"]) != original
    assert notebook_hash(tmp_path, CELLS[::-1]) != original


@pytest.mark.parametrize("content", ["words", "[]", "{}", '{"cells": [{"cell_type": "code"}]}'])
def test_what_is_no_notebook_has_no_hash(tmp_path: Path, content: str) -> None:
    with pytest.raises(ValueError):
        provenance.notebook_hash(content)
    (tmp_path / "x.ipynb").write_text(content)
    assert provenance.notebook_file_hash(tmp_path / "x.ipynb") is None
    assert provenance.notebook_file_hash(tmp_path / "missing.ipynb") is None


def test_source_hash_follows_the_library_but_not_what_is_around_the_notebooks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = provenance.source_hash()
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(provenance.ROOT / "macrodyn_lib", tmp_path / "macrodyn_lib", ignore=ignore)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.source_hash() == original
    for name in provenance.AROUND_NOTEBOOKS:
        path = tmp_path / "macrodyn_lib" / f"{name}.py"
        path.write_text(path.read_text() + "\n")
    assert provenance.source_hash() == original
    for name in ("kernels/ising.py", "coefficients.txt"):
        before = provenance.source_hash()
        with (tmp_path / "macrodyn_lib" / name).open("a") as file:
            file.write("\n")
        assert provenance.source_hash() != before


def test_run_records_code_as_it_was_at_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = provenance.source_hash()
    run = study.begin(CHAIN, {"preset": "smoke", "seed": 3, "output_dir": str(tmp_path)})
    monkeypatch.setattr(provenance, "source_hash", lambda: "edited meanwhile")
    run.finish()
    stored = Results.read(tmp_path / "results.json").provenance
    notebook = study.notebooks_root() / f"{CHAIN}.ipynb"
    assert stored["source_hash"] == before
    assert stored["notebook_hash"] == provenance.notebook_file_hash(notebook)
    assert (stored["seed"], stored["data"]) == (3, {})


def test_run_records_the_notebook_that_a_sweep_names(tmp_path: Path) -> None:
    namespace = {"preset": "smoke", "output_dir": str(tmp_path), "_notebook_hash": "0123456789ab"}
    assert study.begin(CHAIN, namespace).code.notebook_hash == "0123456789ab"


def test_run_records_the_data_files_it_reads(tmp_path: Path) -> None:
    run = study.begin(CHAIN, {"preset": "smoke", "output_dir": str(tmp_path / "run")})
    path = tmp_path / "weights.npz"
    path.write_bytes(b"weights")
    assert run.uses(path) == path
    run.finish()
    stored = json.loads((tmp_path / "run/results.json").read_text())["provenance"]["data"]
    assert stored == {"weights.npz": hashlib.sha256(b"weights").hexdigest()}
    with pytest.raises(FileNotFoundError):
        run.uses(tmp_path / "missing.npz")


def test_version_is_that_of_the_hashes_whatever_the_commit() -> None:
    hashes = {"source_hash": "1" * 12, "notebook_hash": "2" * 12}
    one = version_of({"git_commit": "a" * 40, "dirty": False, **hashes})
    assert one == version_of({"git_commit": "b" * 40, "dirty": True, **hashes})
    assert one == "library 1111111, notebook 2222222"
    assert version_of({**hashes, "notebook_hash": "3" * 12}) != one
    assert version_of({"git_commit": "a" * 40, "dirty": True}) == "commit aaaaaaa with changes"
    assert version_of({}) == "commit unknown"
