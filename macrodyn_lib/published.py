"""What the paper (arXiv 2511.12842) published, to be set beside the stored results."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedNumber:
    """A published number and the metric of ours that stands for the same thing.

    goal: "near": nearer to the metric's reference is better; "small": smaller is better.
    """

    notebook: str
    metric: str
    what: str
    where: str
    value: float
    goal: Literal["near", "small"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFigure:
    """A figure of the paper in words, and the figures of ours that show the same."""

    number: str
    shows: str
    notebook: str
    figures: tuple[str, ...]


def _numbers(
    notebook: str,
    where: str,
    goal: Literal["near", "small"],
    rows: dict[str, tuple[str, float]],
) -> list[PublishedNumber]:
    return [
        PublishedNumber(
            notebook=notebook, metric=metric, what=what, where=where, value=value, goal=goal
        )
        for metric, (what, value) in rows.items()
    ]


NUMBERS: tuple[PublishedNumber, ...] = (
    *_numbers("01_linear_chain", "table 2", "near", {
        "small.slope": ("slope, 10 particles", -0.1047),
        "small.bias": ("bias, 10 particles", 1.5002),
        "small.diffusion": ("diffusion, 10 particles", 0.3122),
        "large.slope": ("slope, 100 particles", -0.0929),
        "large.bias": ("bias, 100 particles", 0.1419),
        "large.diffusion": ("diffusion, 100 particles", 0.1000),
    }),
    *_numbers("03_curie_weiss", "figure 8 and published data", "small", {
        f"ablation.{side}.error.ours": (f"test error, patches of {side}²", value)
        for side, value in ((64, 0.00040542916), (32, 0.00078521454), (16, 0.0010638589),
                            (8, 0.0043770904))
    }),
    *_numbers("04_ising", "figure 3 and published data", "small", {
        f"ablation.{side}.error_latent.ours": (f"test error, patches of {side}²", value)
        for side, value in ((64, 0.00195277585), (32, 0.00045021327), (16, 0.00079793023),
                            (8, 0.0283694859))
    }),
    *_numbers("06_finite_size_scaling", "figure 5", "near", {
        "beta_over_nu": ("β/ν", 0.129),
        "gamma_over_nu": ("γ/ν", 1.670),
        "nu": ("ν", 0.97),
    }),
)  # fmt: skip

FIGURES: tuple[PublishedFigure, ...] = (
    PublishedFigure(
        number="2",
        shows="Predator-prey waves: MMD between predicted and true laws against time for six "
        "noise scales λ, and its mean against λ, lowest at λ = K = 5. No numbers are "
        "given.",
        notebook="02_predator_prey",
        figures=("noise_scale", "ours_and_naive"),
    ),
    PublishedFigure(
        number="3",
        shows="Ising magnet in a field: test error against the size of the small system, ours "
        "below the baseline at every size, low down to 16².",
        notebook="04_ising",
        figures=("errors",),
    ),
    PublishedFigure(
        number="4",
        shows="Mean and standard deviation of M and ρ against time from M = −0.75 with patches "
        "of 16²; the baseline fluctuates far too much.",
        notebook="04_ising",
        figures=("paths", "transient"),
    ),
    PublishedFigure(
        number="5",
        shows="⟨|M|⟩ and X against L with fitted powers, Binder cumulants that cross at Tc, and "
        "their slopes against L.",
        notebook="06_finite_size_scaling",
        figures=("figure_5",),
    ),
    PublishedFigure(
        number="6",
        shows="⟨|M|⟩ and X against T for four sizes, and their collapse with exact exponents.",
        notebook="06_finite_size_scaling",
        figures=("figure_6",),
    ),
    PublishedFigure(
        number="7",
        shows="NbMoTa: short-range order against temperature with a turn at 800 to 900 K, and "
        "its path in time at 2000 K for 1024 to 524 288 sites.",
        notebook="08_nbmota",
        figures=(),
    ),
    PublishedFigure(
        number="8",
        shows="Curie-Weiss magnet: test error against the patch size, ours below the baseline.",
        notebook="03_curie_weiss",
        figures=("errors",),
    ),
    PublishedFigure(
        number="9",
        shows="Mean and standard deviation of M against time from M = −0.5. (The published "
        "rollouts relax 2.3 times too slowly: their steps last one sweep.)",
        notebook="03_curie_weiss",
        figures=("paths",),
    ),
    PublishedFigure(
        number="10",
        shows="Ising at T = 2.25: learned from a small lattice; the same with the noise "
        "rescaled, which freezes; from partial evolution, which is right.",
        notebook="07_ising_ablation",
        figures=("d3",),
    ),
    PublishedFigure(
        number="11",
        shows="Equilibrium laws of M for three sources of snapshots times three ways to use "
        "them; the row of naive upsampling diverged.",
        notebook="07_ising_ablation",
        figures=("d4",),
    ),
)
