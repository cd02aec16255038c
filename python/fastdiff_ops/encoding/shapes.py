"""Shapes by their signed distance, in the cube [-1, 1]^3: analytic ones and triangle meshes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["SHAPES", "AnalyticShape", "MeshShape", "Shape"]

_POOL = 1 << 14
_SPREADS = (0.02, 0.1)  # of samples around the surface
_MESH_SIZE = 0.8  # half of its longest side


class Shape(ABC):
    """What `fit_sdf` fits: samples of a signed distance, negative inside, and points of the surface."""

    name: str

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return float32 points [n, 3], half of them near the surface, and their distances [n]."""

    @abstractmethod
    def surface(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return float32 points [n, 3] of the surface and their outward unit normals [n, 3]."""


class AnalyticShape(Shape):
    """A shape by a function.

    Parameters
    ----------
    name : str
    distance : callable
        From float64 points [N, 3] to signed distances [N], negative inside.

    Raises
    ------
    ValueError
        If the function has hardly a zero in [-1, 1]^3, or a slope other than 1 there.

    Examples
    --------
    >>> box = AnalyticShape("box", lambda p: p.abs().amax(-1) - 0.5)  # right inside and in front of faces
    >>> points, normals = box.surface(4, torch.Generator().manual_seed(0))
    >>> points.abs().amax(-1)
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """

    def __init__(self, name: str, distance: Callable[[Tensor], Tensor]) -> None:
        self.name = name
        self.distance = distance
        self._pool = self._project(torch.Generator().manual_seed(0))

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return points, half of them near the surface, and their distances; see `Shape.sample`."""
        chosen = self._pool[torch.randint(len(self._pool), (n // 2,), generator=generator)]
        points = torch.cat([_around(chosen, generator), _in_cube(n - n // 2, generator)]).clamp(-1, 1).float()
        return points, self.distance(points.double()).float()

    def surface(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return points of the surface and their normals; see `Shape.surface`."""
        points = self._pool[torch.randint(len(self._pool), (n,), generator=generator)]
        normals = torch.nn.functional.normalize(self._gradient(points), dim=-1)
        return points.float(), normals.float()

    def _gradient(self, points: Tensor) -> Tensor:
        h = 1e-5
        ends = [self.distance(points + h * e) - self.distance(points - h * e) for e in torch.eye(3).double()]
        return torch.stack(ends, dim=-1) / (2 * h)

    def _project(self, generator: torch.Generator) -> Tensor:
        points = _in_cube(_POOL, generator)
        for _ in range(6):
            gradient = self._gradient(points)
            length2 = gradient.square().sum(-1).clamp(min=1e-6)
            points = points - (self.distance(points) / length2)[:, None] * gradient
        # At an edge the difference quotient is the normal of neither side.
        good = (self._gradient(points).norm(dim=-1) - 1).abs() < 0.01
        good &= (self.distance(points).abs() < 1e-6) & (points.abs().amax(-1) <= 1)
        if int(good.sum()) < 100:
            raise ValueError(f"`distance` of {self.name!r} has no zeros of slope 1 in [-1, 1]^3")
        return points[good]


class MeshShape(Shape):
    """A closed triangle mesh, moved and scaled into [-0.8, 0.8]^3; needs trimesh.

    Distances are computed once, for a fixed set of points.

    Parameters
    ----------
    path : Path or str
        Of any format that trimesh reads: PLY, STL, OBJ, OFF, GLB ...
    n_samples : int
        How many points know their distance.

    Raises
    ------
    ImportError
        If trimesh is not installed.
    ValueError, OSError
        If the file is missing, holds no triangles, or the mesh is not closed and so has no inside.
    """

    def __init__(self, path: Path | str, n_samples: int = 40_000) -> None:
        try:
            import rtree  # noqa: F401  trimesh looks up the nearest triangle by it
            import trimesh
        except ImportError as error:
            raise ImportError("meshes need trimesh: pip install 'fastdiff-ops[mesh]'") from error
        path = Path(path)
        self.name = path.stem
        self._mesh = _load_mesh(trimesh, path)
        generator = torch.Generator().manual_seed(0)
        near, _ = self.surface(n_samples // 2, generator)
        points = [_around(near.double(), generator), _in_cube(n_samples - len(near), generator)]
        self._points = torch.cat(points).clamp(-1, 1).float()
        outwards = trimesh.proximity.signed_distance(self._mesh, self._points.double().numpy())
        self._distances = -torch.from_numpy(outwards).float()

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return points, half of them near the surface, and their distances; see `Shape.sample`."""
        chosen = torch.randint(len(self._points), (n,), generator=generator)
        return self._points[chosen], self._distances[chosen]

    def surface(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return points of the surface and their normals; see `Shape.surface`."""
        corners = torch.from_numpy(self._mesh.triangles.copy()).double()
        areas = torch.from_numpy(self._mesh.area_faces.copy()).double()
        place = torch.rand(n, generator=generator, dtype=torch.float64) * areas.sum()
        face = torch.searchsorted(areas.cumsum(0), place).clamp(max=len(areas) - 1)
        root, other = torch.rand(2, n, 1, generator=generator, dtype=torch.float64)
        root = root.sqrt()
        a, b, c = corners[face].unbind(1)
        normals = torch.from_numpy(self._mesh.face_normals.copy())[face]
        points = (1 - root) * a + root * (1 - other) * b + root * other * c
        return points.float(), normals.float()


def _load_mesh(trimesh: Any, path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        mesh = trimesh.load(path, force="mesh")
    except Exception as error:  # readers of many formats raise what they like
        raise ValueError(f"{path} is no mesh that trimesh can read: {error}") from error
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise ValueError(f"{path} holds no triangles")
    if not mesh.is_watertight:
        raise ValueError(f"{path}: the mesh is not closed, so it has no inside")
    trimesh.repair.fix_inversion(mesh)
    low, high = mesh.bounds
    mesh.apply_translation(-(low + high) / 2)
    mesh.apply_scale(2 * _MESH_SIZE / (high - low).max())
    return mesh


def _in_cube(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, 3, generator=generator, dtype=torch.float64) * 2 - 1


def _around(points: Tensor, generator: torch.Generator) -> Tensor:
    spread: Tensor = torch.tensor(_SPREADS).double()[torch.arange(len(points)) % len(_SPREADS), None]
    noise = torch.randn(len(points), 3, generator=generator, dtype=torch.float64)
    return points + spread * noise


def _sphere(p: Tensor) -> Tensor:
    distance: Tensor = p.norm(dim=-1) - 0.65
    return distance


def _torus(p: Tensor) -> Tensor:
    return torch.hypot(torch.hypot(p[:, 0], p[:, 1]) - 0.55, p[:, 2]) - 0.22


def _gyroid(p: Tensor) -> Tensor:
    """Shell around a gyroid, cut out of a ball: the larger of two distances, exact but beyond the rim."""
    shell = _gyroid_surface(p).abs() - 0.07
    return torch.maximum(shell, p.norm(dim=-1) - 0.85)


def _gyroid_surface(p: Tensor, frequency: float = 2 * math.pi / 1.2) -> Tensor:
    """Distance of sin x cos y + sin y cos z + sin z cos x = 0, by its nearest point; at most 0.04 off."""
    foot = p
    for _ in range(8):
        sine, cosine = torch.sin(frequency * foot), torch.cos(frequency * foot)
        value = (sine * cosine.roll(-1, -1)).sum(-1)
        gradient = frequency * (cosine * cosine.roll(-1, -1) - sine * sine.roll(1, -1))
        # The tangent plane's point nearest to p. Where the gradient is short, the plane is worth nothing; and
        # of whole steps some never settle.
        height = (value + ((p - foot) * gradient).sum(-1)) / gradient.square().sum(-1).clamp(min=10.0)
        foot = foot + 0.6 * (p - height[:, None] * gradient - foot)
    start = (torch.sin(frequency * p) * torch.cos(frequency * p).roll(-1, -1)).sum(-1)
    distance: Tensor = torch.sign(start) * (p - foot).norm(dim=-1)
    return distance


SHAPES: dict[str, Callable[[Tensor], Tensor]] = {"torus": _torus, "gyroid": _gyroid, "sphere": _sphere}
