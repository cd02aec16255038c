"""Multiresolution encodings of points as modules: simplex grids, cubic grids, and fields made of them."""

from ..ops import GridLevels, SimplexLevels
from .field import FieldMLP
from .grid import GridEncoding
from .morton import morton_order
from .simplex import SimplexEncoding

__all__ = [
    "FieldMLP",
    "GridEncoding",
    "GridLevels",
    "SimplexEncoding",
    "SimplexLevels",
    "morton_order",
]
