"""The cubic-grid encoding as a module, and tiny-cuda-nn's parameters for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..ops import GridLevels, grid_encode
from ..ops.random import Seed
from ._module import Encoding, level_scale
from .config import read_config


class GridEncoding(Encoding):
    """Trainable multiresolution features on cubic grids, Instant-NGP's hash grid (arXiv 2201.05989).

    Takes points (..., n) to features (..., L F); 2^n table reads a level. Parameters, attributes and errors
    are those of `SimplexEncoding`, but for

    Parameters
    ----------
    level_shift, convention
        As in `GridLevels`.

    Examples
    --------
    >>> encoding = GridEncoding(2, n_levels=4, log2_hashmap_size=12, base_resolution=4, seed=0)
    >>> encoding(torch.rand(5, 2)).shape
    torch.Size([5, 8])
    """

    levels: GridLevels

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
        level_shift: str = "none",
        convention: str = "plain",
        type: str = "Hash",
        bounds: str = "clamp",
        interpolation: str = "Linear",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        seed: Seed = None,
    ) -> None:
        levels = GridLevels(
            n_input_dims,
            n_levels,
            log2_hashmap_size,
            base_resolution,
            level_scale(per_level_scale, finest_resolution, base_resolution, n_levels),
            type,
            level_shift=level_shift,
            convention=convention,
        )
        super().__init__(
            grid_encode, levels, n_features_per_level, bounds, interpolation, dtype, device, seed
        )

    @classmethod
    def from_config(cls, n_input_dims: int, config: Mapping[str, Any], **options: Any) -> GridEncoding:
        """Build from tiny-cuda-nn's configuration keys, as `SimplexEncoding.from_config` does.

        `otype` is "HashGrid", "DenseGrid" or "Grid". Cells are those of the "plain" convention unless the
        options say otherwise.
        """
        return cls(n_input_dims, **read_config(config, "cubic"), **options)

    @classmethod
    def from_tiny_cuda_nn(
        cls, n_input_dims: int, config: Mapping[str, Any], params: Tensor, **options: Any
    ) -> GridEncoding:
        """Take over a grid that was trained with tiny-cuda-nn.

        Parameters
        ----------
        n_input_dims : int
            1 to 7.
        config : mapping
            The configuration that it was trained with.
        params : floating Tensor [P F]
            `params` of a `tinycudann.Encoding`; of a `NetworkWithInputEncoding`, the part that follows the
            network's.
        **options
            `bounds`, `device`, and `dtype` (default: that of `params`).

        Returns
        -------
        GridEncoding
            In tiny-cuda-nn's convention: same cells, same entries, same features inside the unit cube, up to
            rounding.

        Raises
        ------
        ValueError, TypeError
            If the configuration is not supported or the number of parameters does not fit it.

        Examples
        --------
        >>> config = {"otype": "HashGrid", "n_levels": 2, "log2_hashmap_size": 8, "base_resolution": 8}
        >>> GridEncoding.from_tiny_cuda_nn(2, config, torch.zeros(640)).table.shape
        torch.Size([320, 2])
        """
        if not isinstance(params, Tensor) or not params.is_floating_point():
            raise TypeError("`params` must be a floating-point Tensor")
        if n_input_dims == 8:
            raise ValueError("`n_input_dims` must be at most 7: that library hashes no more")
        options = {"dtype": params.dtype, "device": params.device, "convention": "tiny-cuda-nn"} | options
        encoding = cls.from_config(n_input_dims, config, seed=0, **options)
        if params.shape != (encoding.table.numel(),):
            wanted = f"[{encoding.table.numel()}], {encoding.levels.sizes} entries a level"
            raise ValueError(f"`params` must have shape {wanted}, got {tuple(params.shape)}")
        with torch.no_grad():
            encoding.table.copy_(params.detach().view_as(encoding.table))
        return encoding
