"""Studies at the door: the contract's defaults, and what is refused in which words."""

import pytest

from macrodyn_lib.errors import ParameterError
from macrodyn_lib.parameters import resolve, run_id

ISING, ABLATION, PREY = "04_ising", "07_ising_ablation", "02_predator_prey"
ALLOY = "08_nbmota"
# the physics parameters of the contract; they do not depend on the preset
CONTRACT = {
    ISING: {
        "side": 64,
        "patch_side": 16,
        "temperature": 2.5,
        "field": 0.1,
        "closure_dimension": 2,
        "boundary": "ghost",
        "patch_duration": 0.3,  # what None stands for
        "noise_scale": 16.0,  # K
        "test_magnetizations": [-0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75],
    },
    ABLATION: {"temperature": 2.25, "side": 64, "patch_side": 16},
    PREY: {
        "a": 3,
        "b": 0.4,
        "c": 0,
        "noise": 0.02,
        "n_small": 100,
        "n_large": 200,
        "n_patches": 5,
        "closure_dimension": 2,
        "noise_scale": 5.0,  # K
        "test_conditions": [[m, k] for m in (0.45, 0.5, 0.55) for k in (0.05, 0.1, 0.15)],
    },
}


@pytest.mark.parametrize("notebook", CONTRACT)
@pytest.mark.parametrize("preset", ["smoke", "quick", "paper"])
def test_defaults_are_those_of_the_contract(notebook, preset):
    resolved = resolve(notebook, {"preset": preset}).resolved()
    assert {name: resolved[name] for name in CONTRACT[notebook]} == CONTRACT[notebook]


def test_noise_scale_is_the_number_of_patches_unless_given():
    given = {"preset": "smoke", "side": 32, "patch_side": 8}
    assert resolve(ISING, given).resolved()["noise_scale"] == 16
    assert resolve(ISING, given | {"patch_side": 16}).resolved()["noise_scale"] == 4
    chosen = given | {"noise_scale": 3.5, "patch_duration": 0.1}
    resolved = resolve(ISING, chosen).resolved()
    assert (resolved["noise_scale"], resolved["patch_duration"]) == (3.5, 0.1)
    # the same run, whether K was left to the geometry or written down
    assert run_id(ISING, resolve(ISING, given)) == run_id(
        ISING, resolve(ISING, given | {"noise_scale": 16.0})
    )


@pytest.mark.parametrize("notebook", CONTRACT)
def test_effort_grows_with_the_preset(notebook):
    names = ("snapshots", "members", "rollouts", "training_steps")
    smoke, quick, paper = (
        [resolve(notebook, {"preset": preset}).resolved()[name] for name in names]
        for preset in ("smoke", "quick", "paper")
    )
    assert all(a <= b <= c and a < c for a, b, c in zip(smoke, quick, paper, strict=True))


@pytest.mark.parametrize(
    ("notebook", "given", "message"),
    [
        (ISING, {"patch_side": 5}, r"patch_side = 5: must divide side = 64 .*, 8, 16, 32, 64$"),
        (ISING, {"side": 56, "patch_side": 8}, r"patch_side = 8: .* 7, 14, 28, 56$"),
        (ISING, {"patch_side": 128}, r"patch_side = 128: must divide side = 64 "),
        (ISING, {"patch_side": 1}, r"parameter patch_side = 1: .*equal to 2"),
        (ISING, {"side": 2}, r"parameter side = 2: .*equal to 4"),
        (ISING, {"increments": "rates"}, r"closure_dimension = 2: must be 0 with .* 'rates'$"),
        (ISING, {"increments": "guessed"}, r"parameter increments = 'guessed': .*'sampled' or"),
        (ISING, {"boundary": "foo"}, r"parameter boundary = 'foo': .*ghost\|periodic\|buffer"),
        (ISING, {"boundary": "buffer(x)"}, r"parameter boundary = 'buffer\(x\)': "),
        (ISING, {"words": 1}, r"parameter words = 1: .*equal to 2"),
        (ISING, {"closure_dimension": 7}, r"parameter closure_dimension = 7: .*equal to 6"),
        (ISING, {"noise_scale": 0}, r"parameter noise_scale = 0: .*greater than 0"),
        (ISING, {"patch_duration": -1}, r"parameter patch_duration = -1: .*greater than 0"),
        (ISING, {"temperature": float("inf")}, r"parameter temperature = inf: .*finite"),
        (ISING, {"test_magnetizations": []}, r"parameter test_magnetizations = \[\]: .*at least 1"),
        (ISING, {"variants": "some"}, r"parameter variants = 'some': .*'few' or 'all'"),
        (ABLATION, {"patch_side": 5}, r"patch_side = 5: must divide side = 64"),
        (ABLATION, {"continuations": 3}, r"parameter continuations = 3: .*multiple of 2"),
        (ABLATION, {"snapshots": 100}, r"parameter snapshots = 100: .*equal to 512"),
        (ABLATION, {"window": 10}, r"parameter window = 10: .*equal to 50"),
        (ABLATION, {"scope": "some"}, r"parameter scope = 'some': .*'few' or 'all'"),
        (PREY, {"n_patches": 7}, r"n_patches = 7: must divide n_large = 200 .* 1, 2, 4, 5, 8, 10"),
        (PREY, {"n_patches": 100}, r"n_patches = 100: .* patches of at least 4 cells"),
        (PREY, {"n_small": 70}, r"n_small = 70: n_large = 200 must be 2\^a 3\^b 5\^c times"),
        (PREY, {"n_small": 400}, r"n_small = 400: n_large = 200 must be"),
        (PREY, {"test_conditions": [[0.5, 0.1], [0.1, 0.2]]}, r"test_conditions = .*\[0.1, 0.2\]"),
        (PREY, {"test_conditions": [[0.9, -0.2]]}, r"\[0.9, -0.2\], .*v = 1 - m .* is negative"),
        (PREY, {"test_conditions": []}, r"parameter test_conditions = \[\]: .*at least 1"),
        (PREY, {"test_conditions": [[0.5]]}, r"parameter test_conditions.0.1 = .*required"),
        (PREY, {"b": 1}, r"parameter b = 1: .*less than 1"),
        (PREY, {"a": 0}, r"parameter a = 0: .*greater than 0"),
        (PREY, {"c": -1}, r"parameter c = -1: .*equal to 0"),
        (PREY, {"noise": 0}, r"parameter noise = 0: .*greater than 0"),
        (PREY, {"closure_dimension": 5}, r"parameter closure_dimension = 5: .*equal to 4"),
        (PREY, {"closure_dimension": 4, "n_large": 140, "n_small": 70, "n_patches": 20},
         r"closure_dimension = 4: must be <= 3 for patches of 7"),
        (PREY, {"continuations": 3}, r"parameter continuations = 3: .*multiple of 2"),
        (PREY, {"rollouts": 10, "members": 3}, r"rollouts = 10: must be >= 25 with members = 3"),
        (PREY, {"direct_sets": 2}, r"parameter direct_sets = 2: .*equal to 4"),
        (ALLOY, {"cells": 20}, r"cells = 20: must be a multiple of patch_cells = 8"),
        (ALLOY, {"sizes": [8, 12]}, r"sizes = 12: must be a multiple of patch_cells = 8"),
        (ALLOY, {"patch_cells": 12, "cells": 24, "sizes": [12, 24]}, r"one vacancy in 1024 sites"),
        (ALLOY, {"temperatures": []}, r"parameter temperatures = \[\]: .*at least 1"),
        (ALLOY, {"temperatures": [2, 1, 2.0]}, r"^temperatures = \[1.0, 2.0, 2.0\]: must differ"),
        (ALLOY, {"sizes": "[8, 8]"}, r"^sizes = \[8, 8\]: must differ from each other$"),
        (ALLOY, {"max_hops": 5000}, r"parameter max_hops = 5000: .*equal to 8192"),
        (ALLOY, {"max_hops": float("inf")}, r"parameter max_hops = inf: .*finite"),
        (ALLOY, {"temperatures": [0, 2000]}, r"parameter temperatures.0 = 0: .*greater than 0"),
        (ALLOY, {"barrier_model": "none"}, r"barrier_model = 'none': .*'network' or 'pair'"),
        (ALLOY, {"boundary": "open"}, r"parameter boundary = 'open': "),
        (ABLATION, {"field": 0.1}, r"unknown parameter 'field': allowed are preset, seed"),
    ],
)  # fmt: skip
def test_wrong_value_raises_one_line_that_names_the_parameter(notebook, given, message):
    with pytest.raises(ParameterError, match=message) as caught:
        resolve(notebook, {"preset": "smoke", **given})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"increments": "rates", "closure_dimension": 0},
        {"boundary": "buffer"},
        {"boundary": "buffer(4)"},
        {"boundary": "periodic", "patch_duration": 0.25, "noise_scale": 8},
        {"side": 48, "patch_side": 8},
        {"side": 80, "patch_side": 16},
        {"side": 16, "patch_side": 16},
    ],
    ids=str,
)
def test_values_in_range_are_taken(given):
    resolved = resolve(ISING, {"preset": "smoke", **given}).resolved()
    assert {name: resolved[name] for name in given} == given
