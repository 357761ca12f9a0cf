"""Split a lattice into K patches, or into overlapping tiles, and put it together again."""

import dataclasses
import itertools
import re
from typing import Any, Literal

import numpy as np


def enlargements(small: int, large: int) -> list[int]:
    """The factors 2, then 3, then 5, that lead from one edge length to another.

    Raises: ValueError: ``large`` is not 2^a 3^b 5^c times ``small``.
    """
    ratio, remainder = divmod(large, small)
    factors = []
    for factor in (2, 3, 5):
        while ratio > 1 and ratio % factor == 0:
            factors.append(factor)
            ratio //= factor
    if remainder or ratio != 1:
        raise ValueError(f"edge = {large}: must be 2^a 3^b 5^c times {small}")
    return factors


def halvings(side: int) -> tuple[int, int]:
    """The base 3, 4, 5 or 7 and the k of side = base 2^k.

    Raises: ValueError: the side is no such number.
    """
    base, count = side, 0
    while base % 2 == 0 and base > 4:
        base, count = base // 2, count + 1
    if not 3 <= base <= 7:
        raise ValueError(f"side = {side}: must be 3, 4, 5 or 7 times a power of 2")
    return base, count


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One box of sites of a lattice, and what its edge sees while it evolves.

    start, shape:  first site and edge lengths; indices wrap around ``lattice_shape``.
    boundary:      "ghost": the sites outside stay at their snapshot values;
                   "periodic": the patch is wrapped on itself (the published code; biased).
    """

    start: tuple[int, ...]
    shape: tuple[int, ...]
    lattice_shape: tuple[int, ...]
    boundary: Literal["ghost", "periodic"] = "ghost"

    @property
    def n_sites(self) -> int:
        return int(np.prod(self.shape))

    @property
    def axes(self) -> tuple[np.ndarray, ...]:
        """Site indices along each axis, wrapped."""
        return tuple(
            (first + np.arange(length)) % extent
            for first, length, extent in zip(
                self.start, self.shape, self.lattice_shape, strict=True
            )
        )

    def sites(self) -> np.ndarray:
        """Flat indices of the patch's sites, (n_sites,), in C order of the patch."""
        return np.ravel_multi_index(np.ix_(*self.axes), self.lattice_shape).ravel()

    @property
    def selection(self) -> tuple[Any, ...]:
        """Index of the patch in (B, *lattice): slices, or index arrays where it wraps around."""
        ends = [first + length for first, length in zip(self.start, self.shape, strict=True)]
        if all(end <= extent for end, extent in zip(ends, self.lattice_shape, strict=True)):
            boxes = [slice(first, end) for first, end in zip(self.start, ends, strict=True)]
            return (slice(None), *boxes)
        return (slice(None), *np.ix_(*self.axes))

    def extract(self, states: np.ndarray) -> np.ndarray:
        """(B, *lattice) -> (B, *patch): a copy of the patch's sites."""
        return np.array(states[self.selection], order="C")

    def widened(self, width: int, *, periodic: bool = True) -> "Patch":
        """The patch with ``width`` more sites on each side, as far as the lattice has them."""
        starts, shape = [], []
        for first, length, extent in zip(self.start, self.shape, self.lattice_shape, strict=True):
            if periodic:
                low, count = first - width, min(length + 2 * width, extent)
            else:
                low = max(first - width, 0)
                count = min(first + length + width, extent) - low
            starts.append(low % extent)
            shape.append(count)
        return dataclasses.replace(self, start=tuple(starts), shape=tuple(shape))

    def insert(self, states: np.ndarray, values: np.ndarray) -> np.ndarray:
        """A copy of ``states`` (B, *lattice) with the patch's sites set to ``values``."""
        result = states.copy()
        result[self.selection] = values
        return result


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Patching:
    """How a lattice is cut: edge length of a patch, its boundary rule, and the stride of the tiles.

    side:          sites along each edge of a patch (one number, or one per axis).
    boundary:      "ghost" (default), "buffer" or "buffer(w)": a rim of w sites evolves too and is
                   then thrown away, "periodic": wrapped on itself (published code; for comparison).
    buffer_width:  w, when boundary is "buffer".
    stride:        distance of neighbouring tiles; None: side, the partition into K patches.
    Source: paper Sec. II (partition, ghost cells, buffer), Algorithm 1 (overlapping tiles).
    """

    side: int | tuple[int, ...]
    boundary: str = "ghost"
    buffer_width: int = 1
    stride: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        match = re.fullmatch(r"buffer\((\d+)\)", self.boundary)
        if match:
            object.__setattr__(self, "boundary", "buffer")
            object.__setattr__(self, "buffer_width", int(match[1]))
        if self.boundary not in ("ghost", "buffer", "periodic"):
            raise ValueError(
                f"boundary = {self.boundary!r}: must be 'ghost', 'buffer', 'buffer(w)' or "
                "'periodic'"
            )
        if self.buffer_width < 1:
            raise ValueError(f"buffer_width = {self.buffer_width}: must be >= 1")
        for name in ("side", "stride"):
            value = getattr(self, name)
            if value is not None and (np.min(value) < 1 or np.any(np.mod(value, 1))):
                raise ValueError(f"{name} = {value}: must be an integer >= 1")
        if self.stride is not None and np.any(np.greater(self.stride, self.side)):
            raise ValueError(
                f"stride = {self.stride}: must be <= side = {self.side}, or sites fall out"
            )

    def patches(
        self, lattice_shape: tuple[int, ...], *, periodic: bool = True
    ) -> tuple[Patch, ...]:
        """The patches of a lattice in C order of their starts.

        Tiles with a stride below the side overlap; on a lattice with open ends (``periodic`` is
        False) those that would cross an end are left out, and the last one is flush with it.

        Raises: ValueError: side does not divide the lattice (partition), or exceeds it (tiles).
        """
        sides = np.broadcast_to(self.side, len(lattice_shape))
        strides = sides if self.stride is None else np.broadcast_to(self.stride, len(lattice_shape))
        starts = [
            _starts(int(side), int(stride), extent, periodic)
            for side, stride, extent in zip(sides, strides, lattice_shape, strict=True)
        ]
        rule: Literal["ghost", "periodic"] = "periodic" if self.boundary == "periodic" else "ghost"
        shape = tuple(int(side) for side in sides)
        return tuple(
            Patch(start=start, shape=shape, lattice_shape=lattice_shape, boundary=rule)
            for start in itertools.product(*starts)
        )

    def rim(self, patch: Patch, *, periodic: bool = True) -> Patch:
        """The patch with its buffer of ``buffer_width`` more sites on each side, in the lattice."""
        return patch.widened(self.buffer_width, periodic=periodic)

    def split(self, states: np.ndarray, lattice_shape: tuple[int, ...] | None = None) -> np.ndarray:
        """(B, *lattice) -> (B, K, *patch), the partition.

        lattice_shape: None: all axes but the first; where sites have several fields, in a last
        axis, it says which axes are cut.
        """
        shape = states.shape[1:] if lattice_shape is None else lattice_shape
        patches = dataclasses.replace(self, stride=None).patches(shape)
        return np.stack([patch.extract(states) for patch in patches], axis=1)

    def assemble(self, parts: np.ndarray, lattice_shape: tuple[int, ...]) -> np.ndarray:
        """(B, K, *patch) -> (B, *lattice), the inverse of ``split``."""
        patches = dataclasses.replace(self, stride=None).patches(lattice_shape)
        if parts.shape[1] != len(patches):
            raise ValueError(f"parts has {parts.shape[1]} patches: must be {len(patches)}")
        fields = parts.shape[2 + len(lattice_shape) :]
        states = np.empty((len(parts), *lattice_shape, *fields), dtype=parts.dtype)
        for k, patch in enumerate(patches):
            states[patch.selection] = parts[:, k]
        return states


def _starts(side: int, stride: int, extent: int, periodic: bool) -> list[int]:
    if side > extent or (stride == side and extent % side):
        divisors = ", ".join(str(d) for d in range(1, extent + 1) if extent % d == 0)
        raise ValueError(
            f"patch side = {side}: must divide the lattice side {extent}; allowed: {divisors}"
        )
    if periodic:
        if extent % stride:
            raise ValueError(f"stride = {stride}: must divide the lattice side {extent}")
        return [0] if side == extent else list(range(0, extent, stride))
    starts = list(range(0, extent - side + 1, stride))
    return starts if starts[-1] == extent - side else [*starts, extent - side]
