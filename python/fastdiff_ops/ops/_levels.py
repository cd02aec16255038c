"""The level tables of multiresolution encodings: host numbers, computed once in float64 and never changed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ._dense import smallest_numbering

MAX_AXES, MAX_LEVELS, MAX_LOG2_ENTRIES = 8, 32, 28
_ALIGNMENT = 8  # entries: keeps every level's first row aligned for vector loads
_MAX_COORDINATE = 2.0**20  # float32 then has 4 bits left for the place inside a cell
_MAX_DENSE = 1 << 28


class Lattice(NamedTuple):
    """How a level of some scale lies in its lattice, before it is known whether the level is hashed."""

    a: int
    k: int
    vertices: int


@dataclass(frozen=True)
class Levels:
    """What the levels of both lattices have in common; use `SimplexLevels` or `GridLevels`."""

    n: int
    n_levels: int = 16
    log2_hashmap_size: int = 19
    base_resolution: int = 16
    per_level_scale: float = 1.5
    type: str = "Hash"
    scales: tuple[float, ...] = field(init=False, repr=False, compare=False)
    shifts: tuple[float, ...] = field(init=False, repr=False, compare=False)
    layout: tuple[int, ...] = field(init=False, repr=False, compare=False)
    vertices: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("n", 1, MAX_AXES),
            ("n_levels", 1, MAX_LEVELS),
            ("log2_hashmap_size", 1, MAX_LOG2_ENTRIES),
            ("base_resolution", 1, None),
        ):
            check_int(name, getattr(self, name), low, high)
        b = self.per_level_scale
        if isinstance(b, bool) or not isinstance(b, int | float):
            raise TypeError(f"`per_level_scale` must be a number, got {b.__class__.__name__}")
        if not (math.isfinite(b) and b > 0):
            raise ValueError(f"`per_level_scale` must be finite and > 0, got {b}")
        check_choice("type", self.type, ("Hash", "Dense"))
        self._fill(self._scales(), self._shifts())

    def _scales(self) -> list[float]:
        """Return the scale of each level, in float64."""
        return [self.base_resolution * self.per_level_scale**level for level in range(self.n_levels)]

    def _shifts(self) -> list[float]:
        """Return what is added to every coordinate, [n_levels * n]."""
        raise NotImplementedError

    def _lattice(self, scale: float, shift: list[float]) -> Lattice:
        """Return the collision-free numbering of a level's vertices."""
        raise NotImplementedError

    def _skewed(self, scale: float) -> float:
        """Return the largest coordinate on a level, about."""
        return scale

    def _entries(self, vertices: int) -> tuple[int, bool]:
        """Return how many entries a level gets, and whether it is dense."""
        table = 1 << self.log2_hashmap_size
        dense = self.type == "Dense" or vertices <= table
        return -(-(vertices if dense else table) // _ALIGNMENT) * _ALIGNMENT, dense

    def _fill(self, scales: list[float], shifts: list[float]) -> None:
        layout: list[int] = []
        vertices: list[int] = []
        first = 0
        for level, scale in enumerate(scales):
            if not self._skewed(scale) < _MAX_COORDINATE:
                raise ValueError(
                    f"`base_resolution` and `per_level_scale` give level {level} the scale {scale:.6g}: "
                    f"lattice coordinates must stay below 2^20, float32 has no digits left there"
                )
            shape = self._lattice(scale, shifts[level * self.n : (level + 1) * self.n])
            size, dense = self._entries(shape.vertices)
            if dense and size > _MAX_DENSE:
                raise ValueError(
                    f'`type` "Dense": level {level} would need {shape.vertices} entries, more than 2^28'
                )
            mask = 0 if dense else (1 << self.log2_hashmap_size) - 1
            layout += [first, size, int(dense), *((shape.a, shape.k) if dense else (1, 0)), mask]
            vertices.append(shape.vertices)
            first += size
        if first >= 1 << 31:
            raise ValueError(f"the levels need {first} entries together: it must be less than 2^31")
        for name, value in (
            ("scales", tuple(scales)),
            ("shifts", tuple(shifts)),
            ("layout", tuple(layout)),
            ("vertices", tuple(vertices)),
        ):
            object.__setattr__(self, name, value)

    @property
    def offsets(self) -> tuple[int, ...]:
        """First entry of each level, and the end of the last: n_levels + 1 numbers."""
        return (*self.layout[0::6], self.n_entries)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each level."""
        return self.layout[1::6]

    @property
    def dense(self) -> tuple[bool, ...]:
        """Whether a level has an entry for each vertex; the others are hashed."""
        return tuple(map(bool, self.layout[2::6]))

    @property
    def a(self) -> tuple[int, ...]:
        """Digits of a dense level's numbering run over 0..a-1; 1 for hashed levels."""
        return self.layout[3::6]

    @property
    def K(self) -> tuple[int, ...]:
        """Second number of a dense simplex level's numbering; 0 elsewhere."""
        return self.layout[4::6]

    @property
    def n_entries(self) -> int:
        """Rows P of the table."""
        return self.layout[-6] + self.layout[-5]


@dataclass(frozen=True)
class SimplexLevels(Levels):
    """Levels of a simplex-grid encoding (arXiv 2311.15439).

    Level l scales the unit cube by s_l, shifts and skews it, and cuts it into simplices with n + 1 vertices.
    It is dense when every vertex that the cube meets can have an entry of its own among 2^log2_hashmap_size;
    else vertices share entries by a hash.

    Parameters
    ----------
    n : int
        Input dimensions, 1 to 8.
    n_levels : int
        1 to 32.
    log2_hashmap_size : int
        Largest number of entries of a level, as a power of two, 1 to 28.
    base_resolution : int
        N_0 >= 1; level l has the resolution N_l = N_0 per_level_scale^l.
    per_level_scale : float
        > 0; 1 is legal.
    type : {"Hash", "Dense"}
        Dense: no level is hashed, however large.
    resolution_mode : {"axis", "density"}
        axis: s_l = N_l. density: s_l = N_l (n + 1)^(-1 / 2n), as many vertices as a cubic grid has.
    level_shift : {"quasi", "none"}
        quasi: a low-discrepancy shift for each level, so that the creases of levels do not coincide.

    Attributes
    ----------
    scales : tuple of L floats
        s_l.
    shifts : tuple of L n floats
        In cells.
    layout : tuple of 6 L ints
        Offset, size, dense, a, K, hash mask of each level, as operators take them.
    vertices : tuple of L ints
        Entries that each level needs to be dense; divided by `sizes`, the load of a hashed level.
    offsets, sizes, dense, a, K, n_entries
        The layout, by column.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, a level is too fine for float32 (s sqrt(n + 1) >= 2^20) or a dense
        one too large (2^28 entries).

    Examples
    --------
    >>> levels = SimplexLevels(3, n_levels=4, log2_hashmap_size=12, base_resolution=4, per_level_scale=2.0)
    >>> levels.dense, levels.sizes, levels.n_entries
    ((True, True, False, False), (432, 1904, 4096, 4096), 10528)
    """

    resolution_mode: str = "axis"
    level_shift: str = "quasi"

    def __post_init__(self) -> None:
        check_choice("resolution_mode", self.resolution_mode, ("axis", "density"))
        check_choice("level_shift", self.level_shift, ("quasi", "none"))
        super().__post_init__()

    def _scales(self) -> list[float]:
        factor = 1.0 if self.resolution_mode == "axis" else (self.n + 1) ** (-0.5 / self.n)
        return [scale * factor for scale in super()._scales()]

    def _shifts(self) -> list[float]:
        shifts = quasi_shifts(self.n, self.n_levels, self.level_shift)
        levels = [shifts[i : i + self.n] for i in range(0, len(shifts), self.n)]
        return [part for level in levels for part in nearest_shift(level)]

    def _skewed(self, scale: float) -> float:
        return scale * math.sqrt(self.n + 1)

    def _lattice(self, scale: float, shift: list[float]) -> Lattice:
        spread = max(abs(part - shift[-1]) for part in shift)
        return Lattice(*smallest_numbering(self.n, scale, spread))


@dataclass(frozen=True)
class GridLevels(Levels):
    """Levels of a cubic-grid encoding (Instant-NGP, arXiv 2201.05989).

    Level l scales the unit cube and interpolates between the 2^n corners of a cell. Dense and hashed levels
    as in `SimplexLevels`, whose first parameters and attributes these are.

    Parameters
    ----------
    n, n_levels, log2_hashmap_size, base_resolution, per_level_scale, type
        As in `SimplexLevels`.
    level_shift : {"none", "quasi"}
        As there; without tiny-cuda-nn's convention only.
    convention : {"plain", "tiny-cuda-nn"}
        plain: N_l cells along an axis. tiny-cuda-nn: N_l - 1, half a cell shifted, in float32 arithmetic and
        with that library's numbering of entries, so that its parameters fit.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, a level is too fine for float32 (2^20 cells) or a dense one too large
        (2^28 entries).

    Examples
    --------
    >>> levels = GridLevels(2, n_levels=3, log2_hashmap_size=10, base_resolution=16, per_level_scale=2.0)
    >>> levels.scales, levels.dense, levels.sizes
    ((16.0, 32.0, 64.0), (True, False, False), (328, 1024, 1024))
    """

    level_shift: str = "none"
    convention: str = "plain"

    def __post_init__(self) -> None:
        check_choice("level_shift", self.level_shift, ("none", "quasi"))
        check_choice("convention", self.convention, ("plain", "tiny-cuda-nn"))
        if self.convention == "tiny-cuda-nn" and self.level_shift != "none":
            raise ValueError('`level_shift` must be "none" in tiny-cuda-nn\'s convention, which has its own')
        super().__post_init__()

    @property
    def _compatible(self) -> bool:
        return self.convention == "tiny-cuda-nn"

    def _scales(self) -> list[float]:
        if not self._compatible:
            return super()._scales()
        step = np.log2(np.float32(self.per_level_scale))
        base = np.float32(self.base_resolution)
        scales = [np.exp2(np.float32(i) * step) * base - np.float32(1) for i in range(self.n_levels)]
        if min(scales) <= 0:
            raise ValueError(
                "`base_resolution` must give every level two vertices in tiny-cuda-nn's convention"
            )
        return [float(scale) for scale in scales]

    def _shifts(self) -> list[float]:
        if self._compatible:
            return [0.5] * (self.n_levels * self.n)
        return quasi_shifts(self.n, self.n_levels, self.level_shift)

    def _lattice(self, scale: float, shift: list[float]) -> Lattice:
        a = math.ceil(scale) + 1 if self._compatible else math.floor(scale + max(shift)) + 2
        return Lattice(a, 0, a**self.n)

    def _entries(self, vertices: int) -> tuple[int, bool]:
        size, dense = super()._entries(vertices)
        if self._compatible and self.type == "Hash":
            size = min(size, 1 << self.log2_hashmap_size)
        return size, dense


def quasi_shifts(n: int, n_levels: int, kind: str) -> list[float]:
    """Return frac((l + 1) phi^-(i + 1)), phi^(n + 1) = phi + 1: the additive recurrence R_n, or zeros."""
    if kind == "none":
        return [0.0] * (n_levels * n)
    phi = 2.0
    for _ in range(60):
        phi = (1 + phi) ** (1 / (n + 1))
    return [(level + 1) * phi ** -(i + 1) % 1.0 for level in range(n_levels) for i in range(n)]


def nearest_shift(shift: list[float]) -> list[float]:
    """Return the shift that moves the simplex lattice likewise and differs least between axes.

    Integers added after the skew move the lattice onto itself; before it they are U t = t - G sum(t).
    """
    turns = [-round(part - shift[-1]) for part in shift]
    n = len(shift)
    common = (1 - 1 / math.sqrt(n + 1)) / n * sum(turns)
    return [part + turn - common for part, turn in zip(shift, turns, strict=True)]


def check_int(name: str, value: Any, low: int, high: int | None) -> None:
    """Raise unless `value` is an int in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"`{name}` must be an int, got {type(value).__name__}")
    if value < low or (high is not None and value > high):
        wanted = f">= {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"`{name}` must be {wanted}, got {value}")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise unless `value` is one of the choices."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}")
