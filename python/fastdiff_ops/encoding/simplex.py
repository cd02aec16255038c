"""The simplex-grid encoding as a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..ops import SimplexLevels, simplex_encode
from ..ops.random import Seed
from ._module import Encoding, level_scale
from .config import read_config


class SimplexEncoding(Encoding):
    """Trainable multiresolution features on simplices: n + 1 table reads a level instead of 2^n.

    "Efficient Encoding of Graphics Primitives with Simplex-based Structures", 2023 (arXiv 2311.15439). Takes
    points (..., n) to features (..., L F).

    Parameters
    ----------
    n_input_dims : int
        n, 1 to 8.
    n_levels : int
        L, 1 to 32.
    n_features_per_level : {1, 2, 4, 8}
        F.
    log2_hashmap_size : int
        Largest number of entries of a level, as a power of two, 1 to 28.
    base_resolution : int
        Of the coarsest level. From five dimensions on 4 to 8 is sensible.
    per_level_scale : float, optional
        Growth of the resolution from level to level. Default 1.5.
    finest_resolution : float, optional
        Of the finest level, instead of `per_level_scale`.
    resolution_mode, level_shift, type
        As in `SimplexLevels`.
    bounds : {"clamp", "extend"}
        What happens outside of the unit cube, see `fastdiff_ops.ops.simplex_encode`.
    interpolation : {"Linear"}
    dtype : torch.dtype
        Of the table: float16, bfloat16, float32, float64.
    device : torch.device or str, optional
    seed : int, torch.Generator, PhiloxState or None
        Of the initial values.

    Attributes
    ----------
    table : Parameter [P, F]
        All entries, the only thing in the state dict.
    levels : SimplexLevels

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    What trains well: Adam with lr 1e-2, betas (0.9, 0.99) and eps 1e-15 (1e-8 would swallow entries that are
    rarely hit), no weight decay on the table, a decaying rate. Keep points float32 under autocast.

    Examples
    --------
    >>> encoding = SimplexEncoding(3, n_levels=4, log2_hashmap_size=12, base_resolution=4, seed=0)
    >>> encoding(torch.rand(2, 5, 3)).shape
    torch.Size([2, 5, 8])
    >>> SimplexEncoding.from_config(2, {"otype": "SimplexGrid", "n_levels": 8}).n_output_dims
    16
    """

    levels: SimplexLevels

    def __init__(
        self,
        n_input_dims: int,
        n_levels: int = 16,
        n_features_per_level: int = 2,
        log2_hashmap_size: int = 19,
        base_resolution: int = 16,
        per_level_scale: float | None = None,
        *,
        finest_resolution: float | None = None,
        resolution_mode: str = "axis",
        level_shift: str = "quasi",
        type: str = "Hash",
        bounds: str = "clamp",
        interpolation: str = "Linear",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        seed: Seed = None,
    ) -> None:
        levels = SimplexLevels(
            n_input_dims,
            n_levels,
            log2_hashmap_size,
            base_resolution,
            level_scale(per_level_scale, finest_resolution, base_resolution, n_levels),
            type,
            resolution_mode=resolution_mode,
            level_shift=level_shift,
        )
        super().__init__(
            simplex_encode, levels, n_features_per_level, bounds, interpolation, dtype, device, seed
        )

    @classmethod
    def from_config(cls, n_input_dims: int, config: Mapping[str, Any], **options: Any) -> SimplexEncoding:
        """Build from tiny-cuda-nn's configuration keys, with that library's defaults.

        Parameters
        ----------
        n_input_dims : int
        config : mapping
            `otype` "SimplexGrid", or "HashGrid" or "Grid" with `lattice` "simplex"; `type` "Hash" or "Dense",
            `n_levels` 16 (or `n_features`), `n_features_per_level` 2, `log2_hashmap_size` 19,
            `base_resolution` 16, `per_level_scale` 2.0 or `finest_resolution`, `interpolation` "Linear",
            `hash` "CoherentPrime".
        **options
            Further arguments of the constructor.

        Raises
        ------
        ValueError, TypeError
            If a key is unknown, or a value not supported.
        """
        return cls(n_input_dims, **read_config(config, "simplex"), **options)
