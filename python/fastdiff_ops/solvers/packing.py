"""A bound solver table in the form that the sampling loop reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastdiff_ops._coefficients import ANCHOR, STATE, pack_coef

if TYPE_CHECKING:
    from .table import Array, SolverTable


@dataclass(frozen=True)
class Packed:
    """A bound table in the form that the sampling loop reads."""

    direct: torch.Tensor  # float64 [E, 1, 64]
    by_x0: torch.Tensor | None  # the same rows with a conversion that passes x0, for clipping
    t_eval: torch.Tensor  # float64 [E]
    noisy: bool
    uses_anchor: tuple[bool, ...]
    scaled: bool  # whether the network's input is scaled
    c_in: tuple[float, ...]
    alpha: float  # of the first state
    sigma: float
    levels: tuple[tuple[float, float], ...]  # alpha and sigma of each X
    elem: torch.Tensor | None
    elem_map: torch.Tensor | None


def coef_dtype(device: torch.device) -> torch.dtype:
    """Type of coefficients and guidance weights on a device: float64, float32 where there is none.

    What is accumulated in float32 rounds them to that first, so nothing is lost.
    """
    return torch.float32 if device.type == "mps" else torch.float64


def pack(table: SolverTable) -> Packed:
    """Pack a table that is bound."""
    prediction = str(table.prediction_type)
    rows = _without_aliases(table)
    to_x0 = _conversion_to_x0(table, prediction)
    shared: dict[str, Any] = {"c_in": np.append(table.c_in[1:], 1.0)}
    if to_x0 is not None:
        shared["jump"] = table.jump * to_x0[:, 1]
    by_x0 = None
    if to_x0 is not None and (post := _conversion_from_x0(table)) is not None:
        by_x0 = torch.from_numpy(pack_coef(rows, to_x0, post=post, **shared))
    assert table.conv is not None
    return Packed(
        direct=torch.from_numpy(pack_coef(rows, table.conv, **shared)),
        by_x0=by_x0,
        t_eval=torch.from_numpy(table.t_eval.copy()),
        noisy=bool(table.noise.any()),
        uses_anchor=tuple(bool(row[:, ANCHOR].any()) for row in rows),
        scaled=bool(np.any(table.c_in != 1.0)),
        c_in=tuple(table.c_in.tolist()),
        alpha=float(table.alpha[0]),
        sigma=float(table.sigma[0]),
        levels=tuple(zip(table.alpha_next.tolist(), table.sigma_next.tolist(), strict=True)),
        elem=None if table.elem is None else torch.from_numpy(table.elem.copy()),
        elem_map=None if table.elem is None else torch.tensor(table.elem_map),
    )


def _without_aliases(table: SolverTable) -> Array:
    """The rows with the anchor's weights moved to the state where the two are one tensor."""
    rows: Array = np.array(table.rows)
    for e in range(len(table)):
        if e == 0 or table.anchor[e - 1] == "same":
            rows[e, :, STATE] += rows[e, :, ANCHOR]
            rows[e, :, ANCHOR] = 0.0
    return rows


def _conversion_to_x0(table: SolverTable, prediction: str) -> Array | None:
    try:
        return np.stack(table.schedule.conversion(table.t, prediction, "x0"), axis=-1)
    except ValueError:  # a velocity or noise model may be usable where x0 is out of reach
        return None


def _conversion_from_x0(table: SolverTable) -> Array | None:
    """(d_x, d_u, d_h) with target = d_x x + d_u x0, per evaluation."""
    post = np.zeros((len(table), 3))
    for e, (t, target) in enumerate(zip(table.t, table.target, strict=True)):
        try:
            post[e, :2] = table.schedule.conversion(float(t), "x0", target)
        except ValueError:
            return None
    return post
