"""What can be set in each notebook, checked before anything runs.

Effort parameters left at None take the value of the preset; physics parameters do not depend on it.
"""

import ast
import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from macrodyn_lib.errors import ParameterError
from macrodyn_lib.lattice import enlargements, halvings

Preset = Literal["smoke", "quick", "paper"]


def _parse_list(value: object) -> object:
    """``papermill -p name '[1, 2]'`` hands a list over as a string, as JSON or as Python has it."""
    if isinstance(value, str):
        for parse in (json.loads, ast.literal_eval):
            with contextlib.suppress(ValueError, SyntaxError):
                return parse(value)
    return value


Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Boundary = Annotated[str, Field(pattern=r"^(ghost|periodic|buffer(\([1-9]\d*\))?)$")]
Magnetizations = Annotated[
    list[Annotated[float, Field(ge=-1, le=1)]], Field(min_length=1), BeforeValidator(_parse_list)
]


class StudyParameters(BaseModel):
    """The parameters every notebook has."""

    # defaults are validated too: a default 15 must give the same run id as a given 15.0
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )
    presets: ClassVar[dict[str, dict[str, Any]]]

    preset: Preset
    seed: Annotated[int, Field(ge=0)] = 0
    output_dir: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        values = dict(given)
        if values.get("preset") is None:
            values["preset"] = os.environ.get("MACRODYN_PRESET") or "quick"
        effort = cls.presets.get(str(values["preset"]), {})
        missing = {name: value for name, value in effort.items() if values.get(name) is None}
        return values | missing

    def _fill(self, name: str, value: Any) -> None:
        """Give a parameter that was left at None its value, which others decide."""
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)  # frozen: only while it is made

    def resolved(self) -> dict[str, Any]:
        """Every parameter that decides the result: all but ``output_dir``."""
        return self.model_dump(mode="json", exclude={"output_dir"})


class QuickstartParameters(StudyParameters):
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"snapshots": 2000, "rollouts": 50},
        "quick": {"snapshots": 10000, "rollouts": 200},
        "paper": {"snapshots": 10000, "rollouts": 200},
    }
    temperature: Positive = 1.1
    field: Finite = 0.1
    snapshots: Annotated[int, Field(ge=80)]
    rollouts: Count


class YourOwnSystemParameters(StudyParameters):
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"trajectories": 250, "members": 2, "rollouts": 20},
        "quick": {"trajectories": 2000, "members": 4, "rollouts": 100},
        "paper": {"trajectories": 8000, "members": 8, "rollouts": 200},
    }
    n_small: Annotated[int, Field(ge=4)] = 32
    n_large: Annotated[int, Field(ge=4)] = 256
    noise: Annotated[float, Field(gt=0, lt=1)] = 0.1
    trajectories: Annotated[int, Field(ge=16)]
    members: Annotated[int, Field(ge=2)]
    rollouts: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _small_rings_make_up_the_large_one(self) -> "YourOwnSystemParameters":
        _check_small_size(self.n_small, self.n_large)
        _check_share("trajectories", self.trajectories, 1, self.members)
        return self


class LinearChainParameters(StudyParameters):
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"trajectories": 3200, "members": 32},
        "quick": {"trajectories": 25600, "members": 64},
        "paper": {"trajectories": 102400, "members": 64},
    }
    n_small: Count = 10
    n_patches: Count = 10
    force: Finite = 15
    noise: Positive = 1
    friction: Positive = 0.1
    coupling: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1
    trajectories: Annotated[int, Field(ge=8)]
    members: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _shares_have_groups(self) -> "LinearChainParameters":
        _check_share("trajectories", self.trajectories, 1, self.members)
        return self


class CurieWeissParameters(StudyParameters):
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"snapshots": 4000, "members": 4, "rollouts": 24, "training_steps": 120},
        "quick": {"snapshots": 8000, "members": 4, "rollouts": 32, "training_steps": 200},
        "paper": {"snapshots": 160000, "members": 8, "rollouts": 64, "training_steps": 800},
    }
    side: Annotated[int, Field(ge=2)] = 64
    patch_side: Count = 16
    temperature: Positive = 1.1
    field: Finite = 0.1
    test_magnetizations: Magnetizations = [-0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75]
    duration: Positive = 0.03
    snapshots: Count
    members: Annotated[int, Field(ge=2)]
    rollouts: Annotated[int, Field(ge=2)]
    training_steps: Count

    @model_validator(mode="after")
    def _a_start_has_a_mean(self) -> "CurieWeissParameters":
        if self.field == 0 and not any(self.test_magnetizations):
            raise ValueError(
                f"test_magnetizations = {self.test_magnetizations}: must not be all 0 with "
                "field = 0, where the true mean stays 0 and there is no relative error"
            )
        return self

    @model_validator(mode="after")
    def _patches_tile_the_lattice(self) -> "CurieWeissParameters":
        _check_patch_side(self.side, self.patch_side)
        _check_share("snapshots", self.snapshots, 40, self.members)
        return self


class PredatorPreyParameters(StudyParameters):
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"snapshots": 2000, "continuations": 4, "members": 3, "rollouts": 25,
                  "training_steps": 150, "direct_sets": 4, "variants": "few"},
        "quick": {"snapshots": 4000, "continuations": 16, "members": 3, "rollouts": 25,
                  "training_steps": 400, "direct_sets": 4, "variants": "few"},
        "paper": {"snapshots": 48000, "continuations": 128, "members": 4, "rollouts": 400,
                  "training_steps": 5000, "direct_sets": 32, "variants": "all"},
    }  # fmt: skip
    a: Positive = 3
    b: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.4
    c: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    noise: Positive = 0.02
    n_small: Annotated[int, Field(ge=4)] = 100
    n_large: Annotated[int, Field(ge=4)] = 200
    n_patches: Count = 5
    closure_dimension: Annotated[int, Field(ge=0, le=4)] = 2
    noise_scale: Positive | None = None
    increments: Literal["sampled", "rates"] = "sampled"
    patch_duration: Positive | None = None
    test_conditions: Annotated[
        list[tuple[float, float]], Field(min_length=1), BeforeValidator(_parse_list)
    ] = [(m, k) for m in (0.45, 0.5, 0.55) for k in (0.05, 0.1, 0.15)]
    snapshots: Annotated[int, Field(ge=500)]
    continuations: Annotated[int, Field(ge=2, multiple_of=2)]
    members: Annotated[int, Field(ge=2)]
    rollouts: Annotated[int, Field(ge=10)]
    training_steps: Count
    direct_sets: Annotated[int, Field(ge=4, multiple_of=2)]
    variants: Literal["few", "all"]

    @model_validator(mode="after")
    def _domain_is_in_order(self) -> "PredatorPreyParameters":
        side, remainder = divmod(self.n_large, self.n_patches)
        if remainder or side < 4:
            allowed = [k for k in range(1, self.n_large // 4 + 1) if self.n_large % k == 0]
            raise ValueError(
                f"n_patches = {self.n_patches}: must divide n_large = {self.n_large} into patches "
                f"of at least 4 cells; allowed: {', '.join(map(str, allowed))}"
            )
        if self.closure_dimension > 3 and all(side % edge for edge in range(2, side // 4 + 1)):
            raise ValueError(
                f"closure_dimension = {self.closure_dimension}: must be <= 3 for patches of {side} "
                "cells, which no blocks of at least 2 cells divide into at least 4"
            )
        _check_small_size(self.n_small, self.n_large)
        if self.rollouts * (self.members - 1) < 50:
            raise ValueError(
                f"rollouts = {self.rollouts}: must be >= {-(-50 // (self.members - 1))} with "
                f"members = {self.members}: the law is compared by sets of 50 paths, also with one "
                "member left out"
            )
        for m, k in self.test_conditions:
            if not (abs(k) <= m and abs(k) <= 1 - m):
                raise ValueError(
                    f"test_conditions = [..., [{m:g}, {k:g}], ...]: |k| must be <= min(m, 1 - m), "
                    "or u = m + k cos(10 pi x) or v = 1 - m - k cos(10 pi x) is negative somewhere"
                )
        from macrodyn_lib.systems.predator_prey import PredatorPrey  # numba; sweeps do without

        system = PredatorPrey(n_cells=self.n_large, a=self.a, b=self.b, c=self.c, noise=self.noise)
        self._fill("patch_duration", system.time_step)
        self._fill("noise_scale", float(self.n_patches))
        return self


class IsingParameters(StudyParameters):
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"snapshots": 2000, "continuations": 2, "members": 2, "rollouts": 4,
                  "training_steps": 150, "words": 2, "variants": "few", "variant_snapshots": 1000},
        "quick": {"snapshots": 4000, "continuations": 2, "members": 3, "rollouts": 8,
                  "training_steps": 200, "words": 2, "variants": "few", "variant_snapshots": 2000},
        "paper": {"snapshots": 64000, "continuations": 4, "members": 6, "rollouts": 32,
                  "training_steps": 1500, "words": 12, "variants": "all",
                  "variant_snapshots": 20000},
    }  # fmt: skip
    side: Annotated[int, Field(ge=4)] = 64
    patch_side: Annotated[int, Field(ge=2)] = 16
    temperature: Positive = 2.5
    field: Finite = 0.1
    closure_dimension: Annotated[int, Field(ge=0, le=6)] = 2
    boundary: Boundary = "ghost"
    patch_duration: Positive | None = None
    noise_scale: Positive | None = None
    increments: Literal["sampled", "rates"] = "sampled"
    test_magnetizations: Magnetizations = [-0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75]
    snapshots: Annotated[int, Field(ge=100)]
    continuations: Annotated[int, Field(ge=2, multiple_of=2)]
    members: Annotated[int, Field(ge=2)]
    rollouts: Annotated[int, Field(ge=2)]
    training_steps: Count
    words: Annotated[int, Field(ge=2)]
    variants: Literal["few", "all"]
    variant_snapshots: Annotated[int, Field(ge=100)]

    @model_validator(mode="after")
    def _patches_tile_the_lattice(self) -> "IsingParameters":
        _check_patch_side(self.side, self.patch_side)
        if self.increments == "rates" and self.closure_dimension > 0:
            raise ValueError(
                f"closure_dimension = {self.closure_dimension}: must be 0 with increments = 'rates'"
            )
        for name in ("snapshots", "variant_snapshots"):
            _check_share(name, getattr(self, name), 4, self.members)
        self._fill("patch_duration", 0.3)
        n_patches = float((self.side // self.patch_side) ** 2)
        self._fill("noise_scale", n_patches)
        if self.noise_scale != n_patches and (self.increments == "rates" or n_patches == 1):
            raise ValueError(
                f"noise_scale = {self.noise_scale:g}: must be K = {n_patches:g} with "
                "increments = 'rates' or a single patch: there is no such factor"
            )
        return self

    @model_validator(mode="after")
    def _every_variant_can_be_made(self) -> "IsingParameters":
        """The autoencoder halves both sides down to 3, 4, 5 or 7; up to four closures are tried."""
        if self.variants == "all":
            try:
                halvings(self.side)
            except ValueError as error:
                raise ValueError(
                    f"{error} with variants = 'all' (the autoencoder); variants = 'few' takes any"
                ) from None
            if self.patch_side % 2 or self.patch_side < 4:
                raise ValueError(
                    f"patch_side = {self.patch_side}: must be even and >= 4 with "
                    "variants = 'all'; variants = 'few' takes any"
                )
        return self


Critical = Annotated[float, Field(ge=2, allow_inf_nan=False)]


class CriticalMagnetParameters(StudyParameters):
    """What the studies of the Ising magnet near its critical point share.

    Far below it the potential of the reversible equation, a polynomial, cannot follow the two
    narrow peaks of M: at T = 1.5 its law is off by far more than its errors say.
    """

    side: Annotated[int, Field(ge=4)] = 64
    patch_side: Annotated[int, Field(ge=4)] = 16

    @model_validator(mode="after")
    def _patches_tile_the_lattice(self) -> Self:
        _check_patch_side(self.side, self.patch_side)
        return self


class IsingAblationParameters(CriticalMagnetParameters):
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"snapshots": 1024, "members": 2, "rollouts": 8, "training_steps": 100,
                  "continuations": 2, "records": 30, "window": 200, "scope": "few"},
        "quick": {"snapshots": 2048, "members": 3, "rollouts": 32, "training_steps": 200,
                  "continuations": 2, "records": 60, "window": 300, "scope": "few"},
        "paper": {"snapshots": 40960, "members": 4, "rollouts": 64, "training_steps": 2000,
                  "continuations": 4, "records": 160, "window": 3000, "scope": "all"},
    }  # fmt: skip
    temperature: Critical = 2.25
    patch_duration: Positive = 0.5
    snapshots: Annotated[int, Field(ge=512)]
    members: Annotated[int, Field(ge=2)]
    rollouts: Annotated[int, Field(ge=2)]
    training_steps: Count
    continuations: Annotated[int, Field(ge=2, multiple_of=2)]
    records: Count
    window: Annotated[float, Field(ge=50, allow_inf_nan=False)]
    scope: Literal["few", "all"]


class IsingCriticalityParameters(CriticalMagnetParameters):
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"snapshots": 512, "relax_duration": 20, "rounds": 30, "continuations": 2,
                  "wolff_samples": 60, "window": 4000, "rollouts": 32, "scope": "all"},
        "quick": {"snapshots": 2048, "relax_duration": 200, "rounds": 200, "continuations": 8,
                  "wolff_samples": 400, "window": 10000, "rollouts": 128, "scope": "all"},
        "paper": {"snapshots": 4096, "relax_duration": 400, "rounds": 800, "continuations": 16,
                  "wolff_samples": 4000, "window": 20000, "rollouts": 256, "scope": "all"},
    }  # fmt: skip
    temperature: Critical = 2.27
    patch_duration: Positive = 2.0
    snapshots: Annotated[int, Field(ge=512)]
    relax_duration: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    rounds: Count
    continuations: Annotated[int, Field(ge=2, multiple_of=2)]
    wolff_samples: Annotated[int, Field(ge=10)]
    window: Annotated[float, Field(ge=50, allow_inf_nan=False)]
    rollouts: Annotated[int, Field(ge=2)]
    scope: Literal["point", "all"]


class FiniteSizeScalingParameters(StudyParameters):
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"resamples": 100},
        "quick": {"resamples": 400},
        "paper": {"resamples": 1000},
    }
    sweep_dir: Annotated[str, Field(min_length=1)] = "criticality"
    larger_dir: Annotated[str, Field(min_length=1)] = "criticality_256"
    resamples: Annotated[int, Field(ge=20)]


class ReportParameters(StudyParameters):
    presets: ClassVar[dict[str, dict[str, Any]]] = {"smoke": {}, "quick": {}, "paper": {}}


class NbMoTaParameters(StudyParameters):
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"temperatures": [1400, 2000], "snapshots": 90, "runs": 2, "members": 3,
                  "rollouts": 16, "training_steps": 100, "direct_runs": 4, "chains": 4,
                  "sweeps": 60, "ordering_sweeps": 150, "sizes": [8, 16], "max_hops": 7e4,
                  "protocol_events": 20000, "variants": "few"},
        "quick": {"temperatures": [1000, 1400, 2000], "snapshots": 160, "runs": 2,
                  "members": 3, "rollouts": 32, "training_steps": 500, "direct_runs": 4,
                  "chains": 4, "sweeps": 2000, "ordering_sweeps": 300, "sizes": [8, 16],
                  "max_hops": 3e5, "protocol_events": 500000, "variants": "few"},
        "paper": {"temperatures": [600, 700, 800, 900, 1000, 1200, 1400, 1600, 2000, 2500, 3000],
                  "snapshots": 1920, "runs": 2, "members": 6, "rollouts": 64,
                  "training_steps": 3000, "direct_runs": 10, "chains": 8, "sweeps": 3000,
                  "ordering_sweeps": 4000, "sizes": [8, 16, 32, 64], "max_hops": 1e6,
                  "protocol_events": 5000000, "variants": "all"},
    }  # fmt: skip
    cells: Annotated[int, Field(ge=8)] = 16
    patch_cells: Annotated[int, Field(ge=8)] = 8
    temperatures: Annotated[
        list[Positive], Field(min_length=1), BeforeValidator(_parse_list), AfterValidator(sorted)
    ]
    barrier_model: Literal["network", "pair"] = "pair"
    boundary: Boundary = "buffer(4)"
    snapshots: Annotated[int, Field(ge=16)]
    runs: Annotated[int, Field(ge=2)]
    members: Annotated[int, Field(ge=2)]
    rollouts: Annotated[int, Field(ge=4)]
    training_steps: Count
    direct_runs: Annotated[int, Field(ge=2)]
    chains: Annotated[int, Field(ge=2)]
    sweeps: Annotated[int, Field(ge=15)]
    ordering_sweeps: Annotated[int, Field(ge=15)]
    sizes: Annotated[list[Count], Field(min_length=2), BeforeValidator(_parse_list)]
    # from alloy_study.FIRST_HOPS * RECORDS on: so long is a small run before it is ever doubled
    max_hops: Annotated[float, Field(ge=8192, allow_inf_nan=False)]
    protocol_events: Count
    variants: Literal["few", "all"]

    @model_validator(mode="after")
    def _lists_are_distinct(self) -> "NbMoTaParameters":
        for name in ("temperatures", "sizes"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} = {values}: must differ from each other")
        return self

    @model_validator(mode="after")
    def _patches_tile_the_alloy(self) -> "NbMoTaParameters":
        _check_share("snapshots", self.snapshots, 8, self.members)
        for name, cells in [("cells", self.cells), *[("sizes", size) for size in self.sizes]]:
            tiles, remainder = divmod(cells, self.patch_cells)
            if remainder:
                raise ValueError(
                    f"{name} = {cells}: must be a multiple of patch_cells = {self.patch_cells}"
                )
            if 2 * cells**3 // 1024 != tiles**3 * (2 * self.patch_cells**3 // 1024):
                raise ValueError(
                    f"patch_cells = {self.patch_cells}: patches of {name} = {cells} must have one "
                    "vacancy in 1024 sites each; patch_cells = 8 does"
                )
        return self


def _check_share(name: str, count: int, least: int, members: int) -> None:
    """Each member of the ensemble learns from trajectories of its own."""
    if count < least * members:
        raise ValueError(f"{name} = {count}: must be >= {least * members} with members = {members}")


def _check_small_size(n_small: int, n_large: int) -> None:
    if not _is_reached(n_small, n_large):
        raise ValueError(
            f"n_small = {n_small}: n_large = {n_large} must be 2^a 3^b 5^c times as many"
        )


def _check_patch_side(side: int, patch_side: int) -> None:
    allowed = [part for part in range(1, side + 1) if _is_reached(part, side)]
    if patch_side not in allowed:
        raise ValueError(
            f"patch_side = {patch_side}: must divide side = {side} into 2^a 3^b 5^c "
            f"parts; allowed: {', '.join(map(str, allowed))}"
        )


def _is_reached(small: int, large: int) -> bool:
    try:
        enlargements(small, large)
    except ValueError:
        return False
    return True


NOTEBOOKS: dict[str, type[StudyParameters]] = {
    "00_quickstart": QuickstartParameters,
    "01_linear_chain": LinearChainParameters,
    "02_predator_prey": PredatorPreyParameters,
    "03_curie_weiss": CurieWeissParameters,
    "04_ising": IsingParameters,
    "05_ising_criticality": IsingCriticalityParameters,
    "06_finite_size_scaling": FiniteSizeScalingParameters,
    "07_ising_ablation": IsingAblationParameters,
    "08_nbmota": NbMoTaParameters,
    "09_your_own_system": YourOwnSystemParameters,
    "90_report": ReportParameters,
}


def resolve(notebook: str, given: Mapping[str, Any]) -> StudyParameters:
    """Validate the given parameters of a notebook and fill in the rest.

    Raises: ParameterError: an unknown notebook or parameter, or a value out of range; one line that
            names the parameter, its value and what is allowed.
    """
    if notebook not in NOTEBOOKS:
        raise ParameterError(f"notebook = {notebook!r}: must be one of {', '.join(NOTEBOOKS)}")
    kind = NOTEBOOKS[notebook]
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        details = error.errors()
        # a wrong preset leaves the effort parameters missing: that is not the user's mistake
        named = [detail for detail in details if detail["type"] != "missing"] or details
        raise ParameterError("; ".join(_explain(kind, detail) for detail in named)) from None


def _explain(kind: type[StudyParameters], detail: Any) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"unknown parameter {name!r}: allowed are {', '.join(kind.model_fields)}"
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"parameter {name} = {detail['input']!r}: {message}" if name else message


def run_id(notebook: str, parameters: StudyParameters) -> str:
    """Identity of a run: a hash of the notebook's name, its resolved parameters and seed."""
    content = json.dumps([notebook, parameters.resolved()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]
