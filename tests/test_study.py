"""The frame of a notebook: parameters at the door, results.json at the end."""

import json
import math
import types

import pytest
from pydantic import ValidationError

from macrodyn_lib import study
from macrodyn_lib.errors import ParameterError
from macrodyn_lib.parallel import thread_count
from macrodyn_lib.parameters import NOTEBOOKS, resolve, run_id
from macrodyn_lib.statistics import Estimate
from macrodyn_lib.study import Results, begin, write_atomically

CHAIN, MAGNET = "01_linear_chain", "03_curie_weiss"


@pytest.fixture
def run(tmp_path):
    return begin(CHAIN, {"preset": "smoke", "output_dir": str(tmp_path / "run")})


@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS))
@pytest.mark.parametrize("preset", ["smoke", "quick", "paper"])
def test_every_notebook_has_every_preset(notebook, preset):
    resolved = resolve(notebook, {"preset": preset}).resolved()
    assert resolved["preset"] == preset
    assert None not in resolved.values()


@pytest.mark.parametrize(
    ("notebook", "given", "message"),
    [
        (CHAIN, {"frictoin": 0.2}, r"unknown parameter 'frictoin': allowed are .*friction"),
        (CHAIN, {"friction": -1}, r"parameter friction = -1: .*greater than 0"),
        (CHAIN, {"friction": float("nan")}, r"parameter friction = nan: .*finite"),
        (CHAIN, {"n_small": 0}, r"parameter n_small = 0: .*greater than or equal to 1"),
        (CHAIN, {"n_patches": 2.5}, r"parameter n_patches = 2.5: .*integer"),
        (CHAIN, {"force": "strong"}, r"parameter force = 'strong': .*number"),
        (CHAIN, {"preset": "huge"}, r"parameter preset = 'huge': .*'smoke', 'quick' or 'paper'$"),
        (CHAIN, {"seed": -1}, r"parameter seed = -1: .*greater than or equal to 0"),
        (CHAIN, {"trajectories": 3}, r"parameter trajectories = 3: .*than or equal to 8"),
        (CHAIN, {"trajectories": 30}, r"trajectories = 30: must be >= 64 with members = 64"),
        (MAGNET, {"snapshots": 100}, r"snapshots = 100: must be >= 160 with members = 4"),
        ("00_quickstart", {"snapshots": 79}, r"snapshots = 79: .*equal to 80"),
        ("04_ising", {"snapshots": 100, "members": 26}, r"snapshots = 100: must be >= 104 with"),
        ("04_ising", {"boundary": "buffer(0)"}, r"boundary = 'buffer\(0\)': .*match pattern"),
        ("04_ising", {"side": 8, "patch_side": 8, "noise_scale": 4}, r"noise_scale = 4: .* K = 1"),
        ("04_ising", {"variants": "all", "side": 36, "patch_side": 12}, r"side = 36: must be 3"),
        ("04_ising", {"variants": "all", "side": 20, "patch_side": 5}, r"patch_side = 5: .* even"),
        ("05_ising_criticality", {"temperature": 1.5}, r"temperature = 1.5: .*equal to 2"),
        (MAGNET, {"field": 0, "test_magnetizations": [0]}, r"test_magnetizations = \[0.0\]: must"),
        ("08_nbmota", {"snapshots": 16}, r"snapshots = 16: must be >= 24 with members = 3"),
        ("09_your_own_system", {"trajectories": 16, "members": 17}, r"must be >= 17 with members"),
        (MAGNET, {"temperature": -0.5}, r"parameter temperature = -0.5: .*than 0"),
        (MAGNET, {"patch_side": 12}, r"patch_side = 12: .*allowed: 1, 2, 4, 8, 16, 32, 64"),
        (MAGNET, {"test_magnetizations": [2]}, r"test_magnetizations.0 = 2: .*equal to 1"),
        (MAGNET, {"test_magnetizations": "half"}, r"test_magnetizations = 'half': .*list"),
        ("99_nothing", {}, r"notebook = '99_nothing': must be one of 00_quickstart"),
    ],
)  # fmt: skip
def test_wrong_parameter_raises_one_line_with_name_value_and_allowed(notebook, given, message):
    with pytest.raises(ParameterError, match=message) as caught:
        resolve(notebook, {"preset": "quick", **given})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[-0.5, 0.25]", "[-.5,.25]", "(-0.5, 0.25)"])
def test_list_may_come_as_text_as_papermill_hands_it_over(text):
    parameters = resolve(MAGNET, {"test_magnetizations": text})
    assert parameters.test_magnetizations == [-0.5, 0.25]


def test_effort_given_by_hand_wins_over_the_preset():
    assert resolve(CHAIN, {"preset": "smoke", "members": 40}).members == 40


def test_preset_comes_from_the_environment_when_it_is_none(monkeypatch):
    monkeypatch.setenv("MACRODYN_PRESET", "smoke")
    assert resolve(CHAIN, {"preset": None}).preset == "smoke"
    for unset in (lambda: monkeypatch.setenv("MACRODYN_PRESET", ""), monkeypatch.undo):
        unset()
        assert resolve(CHAIN, {}).preset == "quick"


def test_run_id_depends_on_what_decides_the_result_alone():
    def identity(**given):
        return run_id(CHAIN, resolve(CHAIN, {"preset": "smoke", **given}))

    assert identity() == identity(output_dir="elsewhere") == identity(force=15.0)
    assert len({identity(), identity(seed=1), identity(force=14), identity(members=33)}) == 4


def test_begin_refuses_an_unknown_name_once_and_ignores_later_ones_on_rerun(tmp_path):
    namespace = {
        "preset": "smoke", "output_dir": str(tmp_path), "friction": 0.2, "_private": 1,
        "In": [], "Out": {}, "get_ipython": None, "exit": None, "quit": None, "open": open,
        "study": types.ModuleType("study"),
    }  # fmt: skip
    run = begin(CHAIN, namespace)
    assert run.friction == 0.2
    with pytest.raises(ParameterError, match="unknown parameter 'fricton'"):
        begin(CHAIN, namespace | {"fricton": 0.3})
    again = begin(CHAIN, namespace | {"run": run, "helper": 3, "friction": 0.4})
    assert again.friction == 0.4


def test_begin_refuses_an_output_dir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ParameterError, match=r"output_dir = .*file/run': must be a writable"):
        begin(CHAIN, {"preset": "smoke", "output_dir": str(tmp_path / "file" / "run")})
    assert (tmp_path / "file").read_text() == "in the way"


def test_nothing_is_cached_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MACRODYN_RUNS", str(tmp_path / "file" / "runs"))
    run = begin(CHAIN, {"preset": "smoke", "output_dir": str(tmp_path / "out")})
    with pytest.warns(UserWarning, match=r"file/runs/.*: nothing is cached \(Not a directory\)"):
        assert run.cached(math.hypot)(3, 4) == 5


def test_number_of_threads_that_is_none_is_refused(monkeypatch):
    for given in ("0", "two", "1.5"):
        monkeypatch.setenv("MACRODYN_THREADS", given)
        with pytest.raises(ParameterError, match=f"MACRODYN_THREADS = '{given}': must be"):
            thread_count()


@pytest.mark.parametrize("record", ["check", "report"])
def test_metric_that_is_not_finite_is_refused_by_name(tmp_path, record):
    run = begin(CHAIN, {"preset": "smoke", "output_dir": str(tmp_path)})
    criterion = {"z": 3, "reference": 1.0} if record == "check" else {}
    with pytest.raises(ValueError, match="metric slope: value = nan is not finite"):
        getattr(run, record)("slope", Estimate(math.nan, 0.1), **criterion)


def test_default_folder_is_named_by_the_run_id(tmp_path, monkeypatch):
    monkeypatch.setenv("MACRODYN_RUNS", str(tmp_path))
    run = begin(CHAIN, {"preset": "smoke"})
    assert run.folder == tmp_path / CHAIN / run_id(CHAIN, run.parameters)


@pytest.mark.parametrize(
    ("criterion", "passes", "fails"),
    [
        ({"z": 3, "reference": 1.0}, Estimate(1.29, 0.1), Estimate(1.31, 0.1)),
        ({"relative": 0.05, "reference": -2.0}, Estimate(-2.09, 0.5), Estimate(-2.11, 0.5)),
        ({"absolute": 0.1, "z": 2, "reference": 0.0}, Estimate(0.29, 0.1), Estimate(0.31, 0.1)),
        (
            {"absolute": 0.1, "relative": 0.1, "reference": 2.0},
            Estimate(2.29),
            Estimate(2.31),
        ),
        ({"below": 0.5}, Estimate(0.5), Estimate(0.51)),
        ({"above": 0.5}, Estimate(0.51), Estimate(0.5)),
    ],
)
def test_check_passes_on_one_side_of_its_criterion_and_fails_on_the_other(
    run, criterion, passes, fails
):
    run.check("inside", passes, **criterion)
    run.check("outside", fails, **criterion)
    assert run.metrics["inside"].passed and not run.metrics["outside"].passed


def test_reference_with_an_error_of_its_own_adds_it_in_squares(run):
    reference = Estimate(1.0, 0.4)  # with 0.3 of the value: 0.5
    run.check("inside", Estimate(2.49, 0.3), reference=reference, kind="simulation", z=3)
    run.check("outside", Estimate(2.51, 0.3), reference=reference, kind="simulation", z=3)
    run.check("exact", Estimate(2.49, 0.3), reference=1.0, kind="exact", z=3)
    run.check("sure", Estimate(2.49, 0.3), reference=Estimate(1.0), kind="exact", z=3)
    verdicts = {name: metric.passed for name, metric in run.metrics.items()}
    assert verdicts == {"inside": True, "outside": False, "exact": False, "sure": False}
    stored = run.metrics["inside"]
    assert (stored.value, stored.standard_error, stored.reference) == (2.49, 0.3, 1.0)
    assert stored.reference_kind == "simulation"


def test_reported_metric_is_not_judged_and_says_so(run):
    run.report("finding", Estimate(5.0, 0.1), reference=Estimate(1.0, 0.2), kind="simulation")
    run.report("alone", Estimate(5.0))
    finding, alone = run.metrics["finding"], run.metrics["alone"]
    assert finding.criterion == alone.criterion == "reported, not judged"
    assert finding.outright is alone.outright is None
    assert finding.passed and (finding.value, finding.reference) == (5.0, 1.0)
    assert (alone.standard_error, alone.reference) == (None, None)


@pytest.mark.parametrize(
    ("criterion", "value", "outright"),
    [
        ({"reference": 2.0, "kind": "exact", "relative": 0.1, "z": 3}, 2.19, True),
        ({"reference": 2.0, "kind": "exact", "relative": 0.1, "z": 3}, 2.21, False),
        ({"reference": -2.0, "kind": "exact", "relative": 0.005, "z": 3}, -2.009, True),
        ({"reference": -2.0, "kind": "exact", "relative": 0.005, "z": 3}, -2.011, False),
        (
            {"reference": 2.0, "kind": "exact", "relative": 0.1, "absolute": 0.05, "z": 3},
            2.24,
            True,
        ),
        ({"reference": 0, "kind": "exact", "absolute": 0.01, "z": 3}, 0.011, False),
        ({"reference": 0, "kind": "exact", "absolute": 1e-5, "z": 3}, 0.9e-5, True),
        ({"reference": 2.0, "kind": "exact", "z": 3}, 2.01, None),
        ({"below": 1e-3, "z": 3}, 0.9e-3, True),
        ({"below": 1e-3, "z": 3}, 1.1e-3, False),
        ({"above": 0.5, "z": 3}, 0.4, False),
        ({"above": 0.5}, 0.6, True),
    ],
)
def test_metric_says_whether_its_goal_holds_without_the_noise(run, criterion, value, outright):
    run.check("metric", Estimate(value, 0.1, 4), **criterion)
    assert run.metrics["metric"].passed
    assert run.metrics["metric"].outright is outright


@pytest.mark.parametrize(
    ("estimate", "criterion", "message"),
    [
        (Estimate(1.0), {"z": 3, "reference": 1.0}, "needs a reference, and a standard error"),
        (Estimate(1.0, 0.1), {"z": 3}, "needs a reference"),
        (Estimate(1.0, 0.1), {"reference": 1.0}, "needs z, absolute, relative, below or above"),
        (Estimate(float("nan"), 0.1), {"below": 1.0}, "value = nan is not finite"),
        (Estimate(1.0, float("nan")), {"below": 1.0}, "standard error = nan is not finite"),
    ],
)
def test_check_raises_when_it_cannot_judge(run, estimate, criterion, message):
    with pytest.raises(ValueError, match=message):
        run.check("metric", estimate, **criterion)


def test_finish_writes_valid_results_and_prints_verdicts(run, capsys):
    run.check("large.slope", Estimate(-0.1, 0.001), reference=-0.1, kind="exact", z=4)
    run.check("large.bias", Estimate(0.3, 0.001), reference=0.15, kind="exact", z=4)
    # what only some presets have is recorded, and not listed
    run.check("large.diffusion", Estimate(0.1, 0.1), reference=0.1, kind="exact", z=4, listed=False)
    run.report("variant", Estimate(0.1, 0.1), listed=False)
    with run.timed("step"):
        pass
    run.finish()
    assert capsys.readouterr().out == "PASS large.slope\nFAIL large.bias\n"
    results = Results.read(run.folder / "results.json")
    assert list(results.metrics) == ["large.slope", "large.bias", "large.diffusion", "variant"]
    assert results.notebook == CHAIN and results.parameters == run.parameters.resolved()
    assert set(results.timings_s) == {"step", "total"}
    contract = {"seed", "git_commit", "dirty", "python", "packages", "cpus", "created"}
    ours = {"source_hash", "notebook_hash", "data", "machine", "threads"}
    assert set(results.provenance) == contract | ours
    assert "output_dir" not in results.parameters
    assert [path.name for path in run.folder.iterdir()] == ["results.json"]


def test_results_say_what_took_the_place_of_a_parameter(run):
    run.instead(n_small=run.n_small, friction=0.3)  # the first is what was asked for
    run.finish()
    results = Results.read(run.folder / "results.json")
    assert results.provenance["instead"] == {"friction": 0.3}
    assert results.parameters["friction"] == run.friction


def test_failed_write_leaves_the_old_file_and_nothing_else(run):
    run.check("large.slope", Estimate(-0.1, 0.001), reference=-0.1, kind="exact", z=4)
    run.finish()
    before = (run.folder / "results.json").read_text()
    run.metrics["large.slope"].value = float("inf")  # JSON has no infinity
    with pytest.raises(ValueError, match="Out of range float"):
        run.finish()
    assert (run.folder / "results.json").read_text() == before
    assert len(list(run.folder.iterdir())) == 1


def test_atomic_write_removes_its_temporary_file_when_it_fails(tmp_path):
    (tmp_path / "target").mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError):
        write_atomically(tmp_path / "target", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_results_refuse_a_file_of_another_schema(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"schema_version": 2}))
    with pytest.raises(ValidationError):
        Results.read(path)


def count_call(path, number):
    """Cached below: leaves a mark each time it really runs."""
    path.write_text(path.read_text() + "x" if path.exists() else "x")
    return number + 1


def test_cache_computes_once_and_again_when_its_entry_is_corrupt(
    run, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("MACRODYN_RUNS", str(tmp_path / "runs"))
    marks = tmp_path / "marks"
    assert [run.cached(count_call)(marks, 1) for _ in range(2)] == [2, 2]
    assert marks.read_text() == "x"
    (stored,) = (tmp_path / "runs" / ".cache").rglob("output.pkl")
    stored.write_bytes(stored.read_bytes()[:3])
    assert run.cached(count_call)(marks, 1) == 2
    assert marks.read_text() == "xx"
    assert "Exception while loading results" in caplog.text


def test_streams_differ_by_name_and_repeat(run):
    first, again, other = (run.stream(name).random() for name in ("a", "a", "b"))
    assert first == again != other


def test_notebook_folder_is_that_of_the_checkout():
    assert (study.notebooks_root() / f"{CHAIN}.ipynb").exists()
