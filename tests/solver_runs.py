"""A small network and a short run that the tests of `sample` share."""

from __future__ import annotations

from typing import Any

import torch
from fastdiff_ops.ops.random import randn
from fastdiff_ops.schedules import VPLinear, timesteps
from fastdiff_ops.solvers import SolverTable, make_table, sample
from torch import Tensor

VP = VPLinear()
TS = timesteps(VP, 6, "logSNR")
X = randn((3, 4, 5, 5), seed=1)


def network(x: Tensor, t: Tensor) -> Tensor:
    """Something smooth that depends on everything."""
    return torch.tanh(x) * (1.0 + t.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1)))


def run(table: SolverTable | str = "dpmpp_2m", x: Any = X, model: Any = network, **kwargs: Any) -> Tensor:
    if isinstance(table, str):
        table = make_table(table, VP, TS)
    return sample(model, x, table, **{"prediction_type": "v", "seed": 0, **kwargs})
