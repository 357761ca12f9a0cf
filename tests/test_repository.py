"""The files around the library: pins, commands and text say the same everywhere."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ["setup", "study", "test", "lab", "paper", "bench"]
# A path into somebody's machine: an absolute path to a home or a work folder.
MACHINE_PATH = re.compile(r"(?<![\w.-])/(?:work|root|home|Users)/")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def lock_lines() -> list[str]:
    return [line for line in read("requirements.lock").splitlines() if not line.startswith("#")]


def pins() -> dict[str, str]:
    return {canonicalize_name(n): v for n, v in (line.split("==") for line in lock_lines())}


def direct_requirements() -> list[Requirement]:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["dev"]
    return [Requirement(line) for line in lines]


def prerequisites() -> dict[str, str]:
    """Target of the Makefile -> what it depends on."""
    found = re.findall(r"^([a-z]+):(?!=)([^#\n]*)", read("Makefile"), re.MULTILINE)
    return {target: needs.strip() for target, needs in found}


def tracked_files() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in out.split("\0") if name and (ROOT / name).is_file()]


def test_lock_has_exact_pins_only() -> None:
    pattern = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][0-9A-Za-z.]*")
    assert [line for line in lock_lines() if not pattern.fullmatch(line)] == []
    names = [canonicalize_name(line.split("==")[0]) for line in lock_lines()]
    assert len(names) == len(set(names)) > len(direct_requirements())


def test_lock_serves_machines_with_and_without_gpu() -> None:
    assert not re.search(r"nvidia|cuda|triton", read("requirements.lock"), re.IGNORECASE)
    assert pins()["torch"] == "2.13.0"  # '+cpu' would not install from the ordinary registry


@pytest.mark.parametrize("requirement", direct_requirements(), ids=lambda r: r.name)
def test_direct_dependency_is_pinned_and_installed(requirement: Requirement) -> None:
    pin = pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin, prereleases=True)
    # '==2.13.0' holds for an installed '2.13.0+cpu' as well
    assert SpecifierSet(f"=={pin}").contains(version(requirement.name), prereleases=True)


def test_environment_yml_names_python_and_the_lock() -> None:
    dependencies = yaml.safe_load(read("environment.yml"))["dependencies"]
    assert "python=3.11" in dependencies
    assert "pip" in dependencies
    (pip,) = (entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert "-r requirements.lock" in pip
    # no second list of versions beside the lock
    assert all(entry.startswith("-") for entry in pip)


def test_every_place_names_the_same_python() -> None:
    config = tomllib.loads(read("pyproject.toml"))
    assert sys.version_info[:2] == (3, 11)
    assert config["project"]["requires-python"] == ">=3.11,<3.12"
    assert config["tool"]["ruff"]["target-version"] == "py311"
    assert config["tool"]["mypy"]["python_version"] == "3.11"
    assert read("requirements.lock").startswith("# Python 3.11")


def test_makefile_has_contract_targets_that_build_the_environment() -> None:
    found = prerequisites()
    assert [t for t in TARGETS if ".venv/.stamp" not in found.get(t, "")] == []


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_alone_prints_every_target() -> None:
    # Under `make test` the outer make's flags would reach this one.
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL"}}
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"^ *make (\w+)", done.stdout, re.MULTILINE)) == set(prerequisites())


def test_readme_names_only_targets_that_exist() -> None:
    readme = read("README.md")
    fences = re.findall(r"^```\w*\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`make ([a-z]+)", readme))
    named |= {t for fence in fences for t in re.findall(r"^make ([a-z]+)", fence, re.MULTILINE)}
    assert {"study", "test"} <= named <= set(prerequisites())


def test_readme_names_only_files_that_exist() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", read("README.md"))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_cluster_examples_name_a_sweep_and_settings_that_exist() -> None:
    cluster, job = yaml.safe_load_all(read("docs/clusters/kubernetes.yaml"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    program, command, sweep, option, address = container["command"]
    assert (program, command, option) == (".venv/bin/macrodyn", "sweep", "--scheduler")
    assert (ROOT / "papermill_runs" / f"{sweep}.yaml").is_file()
    assert address == f"tcp://{cluster['metadata']['name']}-scheduler:8786"
    slurm = yaml.safe_load(read("docs/clusters/slurm.yaml"))["jobqueue"]["slurm"]
    assert (slurm["cores"], slurm["processes"]) == (1, 1)  # one run at a time in a worker
    assert "export MACRODYN_THREADS=1" in slurm["job-script-prologue"]


def test_ci_script_runs_make_test() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8")


def test_text_files_are_utf8() -> None:
    for path in tracked_files():
        if path.suffix in {".py", ".ipynb", ".md", ".toml", ".yaml", ".yml", ".json"}:
            path.read_bytes().decode("utf-8")  # raises with the position


def test_no_file_names_a_path_of_one_machine() -> None:
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        if path == Path(__file__).resolve() or b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
            if MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert found == []
