"""What the paper (arXiv 2511.12842) published, to be set beside the stored results."""

from dataclasses import dataclass
from typing import Literal

Goal = Literal["near", "small", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedNumber:
    """A published number and the metric of ours that stands for the same thing.

    study: a notebook, or a sweep over seeds, the mean of whose runs counts.
    goal: "near": nearer to the metric's reference is better; "small": smaller is better; "none":
    of a baseline, shown without a verdict.
    """

    study: str
    metric: str
    what: str
    where: str
    value: float
    goal: Goal


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFigure:
    """A figure of the paper in words, and the figures of ours that show the same."""

    number: str
    shows: str
    notebook: str
    figures: tuple[str, ...]


# Short-range order predicted by the published models, n = 8192, from zero, 5 million events.
PUBLISHED_ORDER = {
    300: (-0.08666, -0.18281, 0.25969, -0.00170, 0.15073, -0.45177),
    400: (-0.10011, -0.08360, 0.13590, 0.00380, 0.08863, -0.22465),
    500: (-0.23035, 0.01302, 0.13630, -0.19296, 0.14245, -0.38257),
    600: (-0.35703, 0.52619, -0.25249, -1.18470, 0.60897, -0.44514),
    700: (-0.29552, 0.68089, -0.30569, -1.62388, 1.06038, -0.65646),
    800: (-0.25362, 0.59538, -0.32983, -1.67255, 1.11542, -0.75643),
    900: (-0.18604, 0.51343, -0.35298, -1.67165, 1.15732, -0.80588),
    1000: (-0.13854, 0.39337, -0.30791, -1.53911, 1.11824, -0.83567),
    1200: (-0.10209, 0.31690, -0.25436, -1.23984, 0.90519, -0.66684),
    1400: (-0.07941, 0.26042, -0.20833, -1.03487, 0.76348, -0.56546),
    1600: (-0.08695, 0.23263, -0.16204, -0.83793, 0.60068, -0.44333),
    1800: (-0.06440, 0.18648, -0.13388, -0.71005, 0.52029, -0.39042),
    2000: (-0.05039, 0.17115, -0.13120, -0.63708, 0.46220, -0.33569),
    2200: (-0.05490, 0.14650, -0.10195, -0.57077, 0.41920, -0.32307),
    2400: (-0.05651, 0.15002, -0.10432, -0.53224, 0.37593, -0.27838),
    2600: (-0.06564, 0.13293, -0.07735, -0.48748, 0.34824, -0.27793),
    2800: (-0.03554, 0.12104, -0.09623, -0.44432, 0.31585, -0.22727),
    3000: (-0.04064, 0.10874, -0.07660, -0.41643, 0.30176, -0.23168),
}
# The same at 2000 K by number of sites, mean of the last 100 steps of the published rollouts.
PUBLISHED_BY_SIZE = {
    1024: (-0.0700, 0.1418, -0.1328, -0.6643, 0.4582, -0.3502),
    8192: (-0.0647, 0.1739, -0.1196, -0.6393, 0.4616, -0.3467),
    65536: (-0.1918, 0.0804, -0.2016, -0.5073, 0.4816, -0.3246),
    524288: (-0.0989, 0.3060, -0.1423, -0.2691, 0.6271, -0.3242),
}


def _numbers(
    study: str,
    where: str,
    goal: Goal,
    rows: dict[str, tuple[str, float]],
) -> list[PublishedNumber]:
    return [
        PublishedNumber(study=study, metric=metric, what=what, where=where, value=value, goal=goal)
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
    *_numbers("03_curie_weiss", "published data", "none", {
        f"ablation.{side}.error.naive": (f"test error of the baseline, patches of {side}²", value)
        for side, value in ((64, 0.00040812767), (32, 0.0010135694), (16, 0.002531292),
                            (8, 0.012569587))
    }),
    *_numbers("04_ising", "figure 3 and published data", "small", {
        f"ablation.{side}.error_latent.ours": (f"test error, patches of {side}²", value)
        for side, value in ((64, 0.00195277585), (32, 0.00045021327), (16, 0.00079793023),
                            (8, 0.0283694859))
    }),
    *_numbers("04_ising", "published data", "none", {
        f"ablation.{side}.error.naive": (f"test error of the baseline, patches of {side}²", value)
        for side, value in ((64, 0.00208864818), (32, 0.0012862898), (16, 0.0320414605),
                            (8, 0.1305925195))
    }),
    *_numbers("06_finite_size_scaling", "figure 5", "near", {
        "beta_over_nu": ("β/ν", 0.129),
        "gamma_over_nu": ("γ/ν", 1.670),
        "nu": ("ν", 0.97),
    }),
    *_numbers("nbmota_network", "figure 7 and published data", "near", {
        f"protocol.{temperature}.{pair}": (f"δ {pair} after 5 million events at {temperature} K", v)
        for temperature, order in PUBLISHED_ORDER.items()
        for pair, v in zip(("NbNb", "NbMo", "NbTa", "MoMo", "MoTa", "TaTa"), order, strict=True)
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
        figures=("order", "sizes"),
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
