"""What a user of plain papermill sees for bad input: a line that names it, and no results."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from macrodyn_lib.study import notebooks_root

PAPERMILL = Path(sys.executable).with_name("papermill")


def papermill(
    notebook: str, output_dir: Path, *parameters: str
) -> subprocess.CompletedProcess[str]:
    """Run a notebook at preset smoke with ``name value`` pairs of parameters."""
    pairs = ["preset", "smoke", "output_dir", str(output_dir), *parameters]
    options = [part for k in range(0, len(pairs), 2) for part in ("-p", pairs[k], pairs[k + 1])]
    command = [PAPERMILL, notebooks_root() / f"{notebook}.ipynb", os.devnull, *options]
    return subprocess.run(
        [*map(str, command), "--no-progress-bar", "-k", "python3"], capture_output=True, text=True
    )


@pytest.mark.notebook
@pytest.mark.parametrize(
    ("notebook", "parameters", "message"),
    [
        ("01_linear_chain", ("frictoin", "0.2"), "unknown parameter 'frictoin': allowed are"),
        ("01_linear_chain", ("friction", "-1"), "parameter friction = -1: Input should be greater"),
        ("02_predator_prey", ("n_patches", "7"), "n_patches = 7: must divide n_large = 200"),
        (
            "02_predator_prey",
            ("test_conditions", "[[0.5, 0.1], [0.1, 0.2]]"),
            "test_conditions = [..., [0.1, 0.2], ...]: |k| must be <= min(m, 1 - m)",
        ),
        ("03_curie_weiss", ("temperature", "-1.1"), "parameter temperature = -1.1: Input should"),
        ("03_curie_weiss", ("patch_side", "12"), "patch_side = 12: must divide side = 64"),
    ],
)
def test_bad_parameter_ends_the_run_with_its_name_and_no_results(
    tmp_path: Path, notebook: str, parameters: tuple[str, str], message: str
) -> None:
    run = papermill(notebook, tmp_path / "run", *parameters)
    assert run.returncode != 0
    assert run.stderr.strip().splitlines()[-1].startswith(f"ParameterError: {message}")
    assert not (tmp_path / "run").exists()


@pytest.mark.notebook
def test_unwritable_output_dir_ends_the_run_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    run = papermill("01_linear_chain", tmp_path / "file" / "run")
    assert run.returncode != 0
    assert "parameter output_dir = " in run.stderr.strip().splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
