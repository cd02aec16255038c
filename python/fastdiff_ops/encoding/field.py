"""A field: an encoding and a small network."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from ..ops._encode import autocast_dtype
from ..ops._levels import check_int
from ._module import Encoding


class FieldMLP(nn.Module):
    """An encoding followed by a small ReLU network: from points (..., n) to values (..., n_output_dims).

    Parameters
    ----------
    encoding : SimplexEncoding or GridEncoding
    n_output_dims : int
        >= 1; the last layer is linear.
    width : int
        Of the hidden layers.
    n_hidden : int
        Number of hidden layers, >= 0.
    bias : bool

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    Features come out of the encoding in the dtype of the layers, under autocast in that of autocast.

    Examples
    --------
    >>> from fastdiff_ops.encoding import SimplexEncoding
    >>> field = FieldMLP(SimplexEncoding(2, n_levels=4, log2_hashmap_size=10, base_resolution=4), 3)
    >>> field(torch.rand(7, 2)).shape
    torch.Size([7, 3])
    """

    def __init__(
        self, encoding: Encoding, n_output_dims: int, *, width: int = 64, n_hidden: int = 2, bias: bool = True
    ) -> None:
        super().__init__()
        given: object = encoding
        if not isinstance(given, Encoding):
            wanted = "a SimplexEncoding or GridEncoding"
            raise TypeError(f"`encoding` must be {wanted}, got {type(given).__name__}")
        check_int("n_output_dims", n_output_dims, 1, None)
        check_int("width", width, 1, None)
        check_int("n_hidden", n_hidden, 0, None)
        self.encoding = encoding
        table = encoding.table
        dtype = table.dtype if table.dtype == torch.float64 else torch.float32
        sizes = [encoding.n_output_dims, *[width] * n_hidden]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after, bias=bias, dtype=dtype, device=table.device), nn.ReLU()]
        last = nn.Linear(sizes[-1], n_output_dims, bias=bias, dtype=dtype, device=table.device)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: Tensor, max_level: int | None = None) -> Tensor:
        """Evaluate the field; `max_level` as in `fastdiff_ops.ops.simplex_encode`."""
        dtype = None if autocast_dtype(x.device) else next(self.layers.parameters()).dtype
        features = self.encoding(x, max_level, out_dtype=dtype)
        values: Tensor = self.layers(features)
        return values
