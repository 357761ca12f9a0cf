"""Barriers of the eight hops of a vacancy: the published network, a pair model, or your own.

A barrier model is a compiled function of the species in a window around the vacancy, and its
parameters; ``register`` gives one a name, so that a notebook can ask for it.
"""

import dataclasses
import functools
import hashlib
import os
import pickletools
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import final

import numpy as np

from macrodyn_lib.errors import WeightsError, WeightsNotFoundError
from macrodyn_lib.kernels import vacancy as kernels

SPECIES = ("Nb", "Mo", "Ta")  # codes 1, 2, 3; 0 is a vacancy
N_HIDDEN = 4  # layers of the published network
NETWORK_REACH_SQUARED = 21  # voxels^2; 7.5 Angstrom
BATCH_NORM_EPSILON = 1e-5
MEMORY = 2**14  # windows that a run with the network remembers, 1.6 MB
WEIGHTS_FILE = "nnk_weights.npz"
WEIGHTS_URL = (
    "https://raw.githubusercontent.com/mengyi-chen/"
    "Scalable-learning-of-macroscopic-stochastic-dynamics/"
    "a14d6654beb6fa5bd8b2129baed0eb942ca770cf/NbMoTa_Alloy/utils/weights.npy"
)
# Of the 26 arrays in the order of ``_weight_shapes``, as little-endian float32.
WEIGHTS_SHA256 = "798bf3c32bd8869721f71a87a63710033c718e79931b0139ae44b363132de6fc"


def window_offsets(reach_squared: int, around: np.ndarray | None = None) -> np.ndarray:
    """Sites within a distance of the vacancy, or of any of ``around``, in voxels, (W, 3).

    First the eight neighbours in the order of the hops, then the others by distance; the vacancy
    itself is not among them.
    """
    centres = np.zeros((1, 3), dtype=np.int64) if around is None else around
    reach = int(np.sqrt(reach_squared)) + int(np.abs(centres).max())
    grid = np.moveaxis(np.indices((2 * reach + 1,) * 3), 0, -1).reshape(-1, 3) - reach
    sites = grid[(np.ptp(grid % 2, axis=1) == 0) & (np.abs(grid).max(axis=1) > 0)]
    distances = np.square(sites[:, None] - centres).sum(axis=2)
    squared = np.square(sites).sum(axis=1)
    others = (distances <= reach_squared).any(axis=1) & (squared > 3)
    order = np.argsort(squared[others], kind="stable")
    return np.concatenate([kernels.DIRECTIONS, sites[others][order]])


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairEnergies:
    """H = sum over pairs of V_shell(a, b), a and b species codes (0: vacancy).

    shells: squared distances, voxels^2, ascending.  energies: (S, 4, 4), symmetric, eV.
    """

    shells: tuple[int, ...]
    energies: np.ndarray

    def __post_init__(self) -> None:
        if self.energies.shape != (len(self.shells), 4, 4) or not np.isfinite(self.energies).all():
            raise ValueError(
                f"energies has shape {self.energies.shape}: must be ({len(self.shells)}, 4, 4), "
                "finite"
            )
        if not np.array_equal(self.energies, np.swapaxes(self.energies, 1, 2)):
            raise ValueError("energies is not symmetric in its last two axes")

    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """Offsets (M, 3) of all sites that interact with one, and the shell (M,) of each."""
        return _in_shells(self.shells)


@functools.cache
def _in_shells(shells: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    offsets = window_offsets(shells[-1])
    squared = np.square(offsets).sum(axis=1)
    kept = np.isin(squared, shells)
    return offsets[kept], np.searchsorted(shells, squared[kept])


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BarrierModel:
    """Barriers of the eight hops from the species around a vacancy.

    name:        for tables and messages.
    evaluate:    numba-compiled evaluate(window, parameters, barriers): writes the barriers (8,) in
                 eV from the species codes (W,) of the window; that of a hop onto another vacancy is
                 ignored.
    parameters:  tuple of arrays, handed to ``evaluate``.
    offsets:     (W, 3) sites of the window in voxels (half a lattice parameter): first the eight
                 neighbours in the order of the hops, and with each site its opposite; see
                 ``window_offsets``.
    memory:      windows a run remembers with their rates, 0 or a power of 2; pays where
                 ``evaluate`` takes more than a microsecond. Compared in full: exact.
    pairs:       the energies the barriers obey detailed balance with, if there are any.
    file:        that the numbers come from, if it is known, so that a run can record its content.
    Raises: ValueError: the window is not as described.
    """

    name: str
    evaluate: Callable[..., None]
    parameters: tuple[np.ndarray, ...]
    offsets: np.ndarray
    memory: int = 0
    pairs: PairEnergies | None = None
    file: Path | None = None

    def __post_init__(self) -> None:
        offsets = np.asarray(self.offsets, dtype=np.int64)
        if offsets.ndim != 2 or not np.array_equal(offsets[:8], kernels.DIRECTIONS):
            raise ValueError("offsets must begin with the eight neighbours, as window_offsets does")
        sites = {tuple(site) for site in offsets.tolist()}
        if len(sites) < len(offsets) or any(tuple(-c for c in site) not in sites for site in sites):
            raise ValueError("offsets must hold each site once, and with each its opposite")
        if self.memory & (self.memory - 1) or self.memory < 0:
            raise ValueError(f"memory = {self.memory}: must be 0 or a power of 2")
        if self.memory and len(offsets) > kernels.KEY_SITES:
            raise ValueError(
                f"memory = {self.memory}: must be 0 for a window of {len(offsets)} sites; "
                f"{kernels.KEY_SITES} is the most that can be remembered"
            )
        object.__setattr__(self, "offsets", offsets)

    @property
    def reach(self) -> int:
        """Longest offset along an axis, voxels."""
        return int(np.abs(self.offsets).max())

    @property
    def kernel(self) -> Callable[..., None]:
        """The compiled event loop with this model."""
        return _kernel_of(self.evaluate)

    def hops(self, attempt_rate: float, beta: float) -> kernels.Hops:
        """What the event loop needs, with an empty memory."""
        return kernels.Hops(
            attempt_rate,
            beta,
            self.parameters,
            (self.offsets + self.reach).astype(np.uint32),
            np.zeros((self.memory, kernels.KEY_WORDS), dtype=np.uint64),
            np.empty((self.memory, 8)),
            np.empty(len(self.offsets), dtype=np.uint8),
            np.empty(8),
            np.empty(kernels.KEY_WORDS, dtype=np.uint64),
        )

    def barriers(self, windows: np.ndarray) -> np.ndarray:
        """(B, W) species codes at the offsets -> (B, 8) eV, infinite onto another vacancy."""
        windows = np.ascontiguousarray(windows, dtype=np.uint8)
        result = np.empty((len(windows), 8))
        for window, row in zip(windows, result, strict=True):
            self.evaluate(window, self.parameters, row)
        result[windows[:, :8] == 0] = np.inf
        return result


@functools.cache
def _kernel_of(evaluate: Callable[..., None]) -> Callable[..., None]:
    ours = {
        kernels.network_barriers: kernels.evolve_network,
        kernels.linear_barriers: kernels.evolve_linear,
    }
    return ours[evaluate] if evaluate in ours else kernels.compiled(evaluate)


# --- models by name -----------------------------------------------------------------------------

_REGISTRY: dict[str, Callable[[], BarrierModel]] = {}


def register(name: str, load: Callable[[], BarrierModel]) -> None:
    """Make ``NbMoTa(barrier_model=name)`` use the model that ``load()`` returns.

    Raises: ValueError: the name is taken.
    """
    if name in _REGISTRY:
        raise ValueError(f"name = {name!r}: is taken; registered: {', '.join(_REGISTRY)}")
    _REGISTRY[name] = load


def barrier_model(name: str) -> BarrierModel:
    """The registered model of this name; "network" and "pair" are there from the start.

    Raises: ValueError: no such model.  WeightsNotFoundError, WeightsError: as ``network_model``.
    """
    if name not in _REGISTRY:
        raise ValueError(f"barrier_model = {name!r}: must be one of {', '.join(_REGISTRY)}")
    return _REGISTRY[name]()


# --- the published network ----------------------------------------------------------------------


def network_model() -> BarrierModel:
    """The network of Xing et al. (2024), 729-128-128-128-128-1, with the published weights.

    The weights are read from the folder ``MACRODYN_DATA`` if it is set (nnk_weights.npz), else
    fetched once from the published repository. Either way their sha256 is checked. What the
    network sees is the raw species code of each site within 7.5 Angstrom, a vacancy as 0, turned so
    that the hop points to (1, 1, 1). It obeys no detailed balance.

    Raises: WeightsNotFoundError: no file, or no connection.  WeightsError: not those weights.
    Source: arXiv 2511.12842, ref. 56; published code.
    """
    return _network_of(os.environ.get("MACRODYN_DATA"))


@functools.cache
def _network_of(folder: str | None) -> BarrierModel:
    del folder  # loaded once for each
    return dataclasses.replace(network_of_weights(load_weights()), file=weights_file())


def load_weights() -> dict[str, np.ndarray]:
    """The published weights, checked; whence, and what is raised: see ``network_model``.

    A download that is not right is deleted: the next call fetches it anew.
    """
    path = weights_file()
    try:
        return _checked_weights(path)
    except WeightsError as error:
        if os.environ.get("MACRODYN_DATA"):  # the user's own file
            raise
        path.unlink(missing_ok=True)
        raise WeightsError(f"{error}. It is deleted; the next call fetches it anew") from error


def _checked_weights(path: Path) -> dict[str, np.ndarray]:
    weights = _weights_in(path) if path.name == WEIGHTS_FILE else published_weights(path)
    _check_weights(weights, str(path))
    digest = hashlib.sha256()
    for name in _weight_shapes():
        digest.update(np.ascontiguousarray(weights[name], dtype="<f4").tobytes())
    if digest.hexdigest() != WEIGHTS_SHA256:
        raise WeightsError(
            f"{path}: its weights have sha256 {digest.hexdigest()}: must be {WEIGHTS_SHA256}"
        )
    return weights


def weights_file() -> Path:
    """The file of the weights: in the folder ``MACRODYN_DATA`` if it is set, else as fetched.

    Raises: WeightsNotFoundError: no file, or no connection.
    """
    folder = os.environ.get("MACRODYN_DATA")
    if not folder:
        return _fetched_file()
    path = Path(folder) / WEIGHTS_FILE
    if not path.is_file():
        raise WeightsNotFoundError(f"MACRODYN_DATA = {folder}: has no file {WEIGHTS_FILE}")
    return path


def network_of_weights(weights: dict[str, np.ndarray]) -> BarrierModel:
    """The network with other weights of the same shapes (keys as in nnk_weights.npz).

    Raises: WeightsError: an array is missing, of another shape, or not finite.
    """
    _check_weights(weights)
    offsets = window_offsets(NETWORK_REACH_SQUARED)
    folded = []
    for layer in range(N_HIDDEN):
        gamma, beta, mean, variance = (
            weights[f"bn{layer}_{part}"].astype(np.float64)
            for part in ("gamma", "beta", "mean", "var")
        )
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
        matrix = weights[f"dense{layer}_weight"] * scale
        if layer == 0:  # voxels without a site are always 0: their rows drop out
            matrix = matrix[(offsets + 4) @ (81, 9, 1)]
        bias = (weights[f"dense{layer}_bias"] - mean) * scale + beta
        folded += [np.ascontiguousarray(matrix.T, dtype=np.float32), bias.astype(np.float32)]
    last = weights[f"dense{N_HIDDEN}_weight"][:, 0].astype(np.float32)
    return BarrierModel(
        name="network",
        evaluate=kernels.network_barriers,
        parameters=(
            turned_windows(offsets), *folded, last,
            weights[f"dense{N_HIDDEN}_bias"].astype(np.float32),
        ),
        offsets=offsets,
        memory=MEMORY,
    )  # fmt: skip


def turned_windows(offsets: np.ndarray) -> np.ndarray:
    """Which site of the window stands at each offset once hop d points to (1, 1, 1): (8, W).

    Quarter turns about z bring x and y right; then z is reversed where the hop goes down.
    """
    x, y, z = offsets.T
    turned = {(-1, -1): (-x, -y), (-1, 1): (-y, x), (1, -1): (y, -x), (1, 1): (x, y)}
    number = {tuple(site): index for index, site in enumerate(offsets.tolist())}
    order = np.empty((8, len(offsets)), dtype=np.int64)
    for d, (i, j, k) in enumerate(kernels.DIRECTIONS.tolist()):
        sources = np.column_stack([*turned[i, j], k * z])
        order[d] = [number[tuple(site)] for site in sources.tolist()]
    return order


def _check_weights(weights: dict[str, np.ndarray], source: str = "network weights") -> None:
    for key, shape in _weight_shapes().items():
        if key not in weights:
            raise WeightsError(f"{source}: {key} is missing: must be {shape}")
        if weights[key].shape != shape or not np.isfinite(weights[key]).all():
            raise WeightsError(
                f"{source}: {key} has shape {weights[key].shape}: must be {shape}, finite"
            )


def _weight_shapes() -> dict[str, tuple[int, ...]]:
    """Arrays of the network in the order of the published file."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(N_HIDDEN):
        shapes[f"dense{layer}_weight"] = (729 if layer == 0 else 128, 128)
        shapes[f"dense{layer}_bias"] = (128,)
        for part in ("gamma", "beta", "mean", "var"):
            shapes[f"bn{layer}_{part}"] = (128,)
    shapes[f"dense{N_HIDDEN}_weight"] = (128, 1)
    shapes[f"dense{N_HIDDEN}_bias"] = (1,)
    return shapes


def _weights_in(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, AttributeError) as error:
        raise WeightsError(f"{path}: is not a readable npz file without pickles") from error
    except Exception as error:  # a damaged zip archive raises whatever its parser meets
        raise WeightsError(f"{path}: is damaged ({error})") from error


def _fetched_file() -> Path:
    import pooch  # only here: nothing else needs the network of the other kind

    try:  # without a hash of the file: it is the content that ``load_weights`` checks
        return Path(pooch.retrieve(WEIGHTS_URL, known_hash=None, path=pooch.os_cache("macrodyn")))
    except Exception as error:  # the many ways a download can fail
        raise WeightsNotFoundError(
            f"network weights could not be fetched ({type(error).__name__}) from {WEIGHTS_URL}; "
            f"set MACRODYN_DATA to a folder that has {WEIGHTS_FILE}"
        ) from error


def published_weights(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the published file, whose format is an array of pickled arrays.

    Nothing is unpickled: the bytes of the arrays are picked out of the stream in their order, and
    the shapes are known. Whether they are the right ones, the sha256 of their content tells.

    Raises: WeightsError: the file is not of that format.
    """
    shapes = _weight_shapes()
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            pickled = file.read()
        buffers = [
            argument
            for _, argument, _ in pickletools.genops(pickled)
            if isinstance(argument, bytes) and len(argument) % 4 == 0
        ]
        return {
            name: np.frombuffer(buffer, dtype="<f4").reshape(shape)
            for (name, shape), buffer in zip(shapes.items(), buffers, strict=True)
        }
    except Exception as error:  # parsers of foreign bytes raise whatever they meet
        raise WeightsError(f"{path}: is not the published file of weights ({error})") from error


# --- the pair model -----------------------------------------------------------------------------


@functools.cache
def pair_model() -> BarrierModel:
    """Pair energies over five shells and kinetically resolved barriers, fitted to the network.

        E_d = E0(species, surroundings of the saddle) + dH / 2,

    with dH the change of H = sum over pairs of V_shell(a, b), and E0 the same for the hop and its
    reverse: exact detailed balance with H. Coefficients and the quality of the fit:
    pair_model.txt; how they were found: ``pair_fit``.
    """
    model = linear_model("pair", *read_pair_coefficients(PAIR_FILE))
    return dataclasses.replace(model, file=Path(str(PAIR_FILE)))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SaddleEnergies:
    """E0 = constant[a] + sum over sites of energies[orbit of the site, a, its species], eV.

    An orbit holds the sites at the same pair of squared distances (near, far) from the two ends of
    the hop, in any order: so E0 is that of the reverse hop.

    orbits: (near, far), voxels^2.  constants: (3,), by hopping species.  energies: (O, 3, 4).
    """

    orbits: tuple[tuple[int, int], ...]
    constants: np.ndarray
    energies: np.ndarray


def linear_model(name: str, pairs: PairEnergies, saddles: SaddleEnergies) -> BarrierModel:
    """The barrier model of the given energies, with everything summed into one table."""
    widest = max(pairs.shells[-1], *(near for near, _ in saddles.orbits))
    ends = np.concatenate([np.zeros((1, 3), dtype=np.int64), kernels.DIRECTIONS])
    offsets = window_offsets(widest, ends)
    table = np.zeros((1 + len(offsets), 4, 3, 8))
    table[0, 0] = saddles.constants[:, None]
    # energy of the atom minus that of a vacancy in its place: (S, species, hopping species)
    differences = (pairs.energies[:, 1:] - pairs.energies[:, :1]).transpose(0, 2, 1)
    orbits = {orbit: index for index, orbit in enumerate(saddles.orbits)}
    shells = {squared: index for index, squared in enumerate(pairs.shells)}
    for site, offset in enumerate(offsets):
        here = int(np.square(offset).sum())
        for d, direction in enumerate(kernels.DIRECTIONS):
            there = int(np.square(offset - direction).sum())
            if there == 0:  # the hopping atom itself
                continue
            # the atom gains the neighbours of the vacancy's site and loses those of its own
            for squared, sign in ((here, 0.5), (there, -0.5)):
                if squared in shells:
                    table[1 + site, :, :, d] += sign * differences[shells[squared]]
            orbit = (min(here, there), max(here, there))
            if orbit in orbits:
                table[1 + site, :, :, d] += saddles.energies[orbits[orbit]].T
    return BarrierModel(
        name=name,
        evaluate=kernels.linear_barriers,
        parameters=(table,),
        offsets=offsets,
        pairs=pairs,
    )


PAIR_FILE = resources.files("macrodyn_lib.systems") / "pair_model.txt"
CODES = ("vacancy", *SPECIES)


def write_pair_coefficients(
    path: Path, pairs: PairEnergies, saddles: SaddleEnergies, comment: str
) -> None:
    """One coefficient a line, eV with nine decimals, after ``comment``."""
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines += [
        f"pair {squared} {CODES[a]} {CODES[b]} {pairs.energies[shell, a, b]:.9f}"
        for shell, squared in enumerate(pairs.shells)
        for a in range(4)
        for b in range(a, 4)
    ]
    lines += [f"constant {SPECIES[a]} {saddles.constants[a]:.9f}" for a in range(3)]
    lines += [
        f"saddle {near} {far} {SPECIES[a]} {CODES[b]} {saddles.energies[orbit, a, b]:.9f}"
        for orbit, (near, far) in enumerate(saddles.orbits)
        for a in range(3)
        for b in range(4)
    ]
    path.write_text("\n".join(lines) + "\n")


def read_pair_coefficients(
    path: "Path | resources.abc.Traversable",
) -> tuple[PairEnergies, SaddleEnergies]:
    """The energies in a file of ``write_pair_coefficients``.

    Raises: ValueError: a line that is none of its kinds.
    """
    pairs: dict[int, np.ndarray] = {}
    orbits: dict[tuple[int, int], np.ndarray] = {}
    constants = np.full(3, np.nan)
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            match line.split():
                case [] | ["#", *_]:
                    pass
                case ["pair", squared, a, b, energy]:
                    shell = pairs.setdefault(int(squared), np.full((4, 4), np.nan))
                    ends = CODES.index(a), CODES.index(b)
                    shell[ends] = shell[ends[::-1]] = float(energy)
                case ["constant", a, energy]:
                    constants[SPECIES.index(a)] = float(energy)
                case ["saddle", near, far, a, b, energy]:
                    orbit = orbits.setdefault((int(near), int(far)), np.full((3, 4), np.nan))
                    orbit[SPECIES.index(a), CODES.index(b)] = float(energy)
                case _:
                    raise ValueError("must begin with pair, constant or saddle")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {line!r}: {error}") from error
    shells = tuple(sorted(pairs))
    energies = np.array([pairs[squared] for squared in shells])
    saddles = SaddleEnergies(
        orbits=tuple(orbits), constants=constants, energies=np.array(list(orbits.values()))
    )
    if not (np.isfinite(constants).all() and np.isfinite(saddles.energies).all()):
        raise ValueError(f"{path}: has coefficients missing")
    return PairEnergies(shells=shells, energies=energies), saddles


register("network", network_model)
register("pair", pair_model)
