"""Per-sample quantile of a tensor's magnitude: the scale of dynamic thresholding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._coefficients import C_O, C_X, MAX_OUTPUTS, N_COEF
from .._load import load_ops
from ..reference import quantile as reference
from ._registration import register_reference

load_ops()

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def abs_quantile(
    x: Tensor,
    outs: Sequence[Tensor] = (),
    coef: Tensor | None = None,
    step: Tensor | None = None,
    *,
    lin: Tensor | Sequence[float] | None = None,
    weights: Tensor | None = None,
    q: float = 0.995,
    floor: float = 1.0,
    cap: float = float("inf"),
) -> Tensor:
    """Return each sample's quantile of |u|, u = c_x x + c_o sum_k g_k outs_k, between `floor` and `cap`.

    Dynamic thresholding (Imagen, arXiv 2205.11487, section 2.3) clamps the predicted x0 to +-s and divides by
    s, where s is this quantile: the result is the `clip_scale` of `solver_step`.

    Parameters
    ----------
    x : Tensor [B, *S]
        float16, bfloat16, float32 or float64; at least one element a sample.
    outs : sequence of up to 4 Tensors [B, *S]
        Raw model outputs of the guidance branches.
    coef, step : float64 Tensor [E, 1 or B, 64], int64 Tensor []
        c_x and c_o are read from row `step` on the device, as `solver_step` reads them.
    lin : (c_x, c_o), or float64 Tensor [2] or [B, 2]
        The two numbers themselves, instead of `coef` and `step`. Without any of them u = x.
    weights : float64 Tensor [1 or E, 2, 1 or B, len(outs)], optional
        Guidance weights g at index 0. Required for more than one output; default 1.
    q : float
        In [0, 1]. Linear interpolation between the neighbouring order statistics, as in torch.quantile.
    floor, cap : float
        The result is min(max(quantile, floor), cap); floor <= cap.

    Returns
    -------
    Tensor [B]
        float64 if `x` is float64, else float32. No gradient flows through it.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, dtype, device or range; on a CPU also if a sample's u holds NaN
        (the text names the sample). On other devices such a sample's result is NaN, as finding out would wait
        for the device.

    Notes
    -----
    Selection on the bit patterns: exact, without sorting, for any number of elements (torch.quantile stops at
    2^24). An infinite upper order statistic gives infinity where torch.quantile gives NaN.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[-3.0, 1.0, 2.0], [0.1, 0.2, 0.3]])
    >>> abs_quantile(x, q=1.0)
    tensor([3., 1.])
    >>> abs_quantile(x, q=0.5, floor=0.0)
    tensor([2.0000, 0.2000])
    """
    _check(x, outs, coef, step, lin, weights)
    if not 0 <= q <= 1:
        raise ValueError(f"`q` must be in [0, 1], got {q}")
    if not floor <= cap:
        raise ValueError(f"`floor` must not be above `cap`, got {floor} and {cap}")
    if coef is None or step is None:
        coef, step = _table(x, lin), torch.zeros((), dtype=torch.int64, device=x.device)
    arguments = (x, list(outs), coef, step, weights, q, floor, cap)
    scale: Tensor = torch.ops.fastdiff_ops.abs_quantile.default(*arguments)
    return scale


def _table(x: Tensor, lin: Tensor | Sequence[float] | None) -> Tensor:
    kind = torch.float32 if x.device.type == "mps" else torch.float64
    pair = torch.as_tensor((1.0, 0.0) if lin is None else lin, dtype=kind, device=x.device)
    table = torch.zeros((1, pair.numel() // 2, N_COEF), dtype=kind, device=x.device)
    table[0, :, C_X : C_O + 1] = pair.reshape(-1, 2)
    return table


def _check(
    x: Tensor,
    outs: Sequence[Tensor],
    coef: Tensor | None,
    step: Tensor | None,
    lin: Tensor | Sequence[float] | None,
    weights: Tensor | None,
) -> None:
    _check_tensor("x", x, x, DTYPES)
    if x.dim() < 1:
        raise ValueError("`x` must have a batch axis [B, *S], got a 0-d tensor")
    if x.shape[0] > 0 and x.numel() == 0:
        raise ValueError(f"`x` must have at least one element a sample, got shape {tuple(x.shape)}")
    if not isinstance(outs, list | tuple):
        raise TypeError(f"`outs` must be a list or tuple of Tensors, got {type(outs).__name__}")
    if len(outs) > MAX_OUTPUTS:
        raise ValueError(f"`outs` must hold at most {MAX_OUTPUTS} tensors, got {len(outs)}")
    for k, out in enumerate(outs):
        _check_tensor(f"outs[{k}]", out, x, DTYPES if k == 0 else (outs[0].dtype,))
        if out.shape != x.shape:
            raise ValueError(f"`outs[{k}]` must have shape {tuple(x.shape)}, got {tuple(out.shape)}")
    batch, floats = x.shape[0], (torch.float64, torch.float32)
    if (coef is None) != (step is None):
        raise ValueError("`coef` and `step` go together")
    if coef is not None and step is not None:
        if lin is not None:
            raise ValueError("give `lin` or `coef` and `step`, not both")
        _check_tensor("coef", coef, x, floats)
        _check_tensor("step", step, x, (torch.int64,))
        if coef.dim() != 3 or coef.shape[1] not in (1, batch) or coef.shape[2] != N_COEF:
            raise ValueError(f"`coef` must have shape [E, 1 or {batch}, {N_COEF}], got {tuple(coef.shape)}")
        if step.dim() != 0:
            raise ValueError(f"`step` must be a 0-d tensor, got shape {tuple(step.shape)}")
    elif lin is None and len(outs) > 0:
        raise ValueError("`lin` or `coef` and `step` must say how `x` and `outs` combine")
    elif lin is not None:
        shape = tuple(lin.shape) if isinstance(lin, Tensor) else (len(lin),)
        if shape not in ((2,), (batch, 2)):
            raise ValueError(f"`lin` must have shape [2] or [{batch}, 2], got {shape}")
    if weights is None:
        if len(outs) > 1:
            raise ValueError(f"`weights` must be given for {len(outs)} outputs")
        return
    _check_tensor("weights", weights, x, floats)
    steps, shape = 1 if coef is None else coef.shape[0], tuple(weights.shape)
    good = len(shape) == 4 and shape[0] in (1, steps) and shape[2] in (1, batch)
    if not good or (shape[1], shape[3]) != (2, len(outs)):
        wanted = f"[1 or {steps}, 2, 1 or {batch}, {len(outs)}]"
        raise ValueError(f"`weights` must have shape {wanted}, got {shape}")


def _check_tensor(name: str, value: object, x: Tensor, dtypes: Sequence[torch.dtype]) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a Tensor, got {type(value).__name__}")
    if value.device != x.device:
        raise ValueError(f"`{name}` must be on the device of `x`, {x.device}, got {value.device}")
    if value.dtype not in dtypes:
        raise TypeError(f"`{name}` must be {' or '.join(map(str, dtypes))}, got {value.dtype}")


@torch.library.register_fake("fastdiff_ops::abs_quantile")
def _(
    x: Tensor,
    outs: list[Tensor],
    coef: Tensor,
    step: Tensor,
    weights: Tensor | None,
    q: float,
    floor: float,
    cap: float,
) -> Tensor:
    return x.new_empty(x.shape[:1], dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)


def _no_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.mark_non_differentiable(output)
    ctx.n_outs = len(inputs[1])


def _backward(ctx: Any, grad: Tensor | None) -> tuple[Any, ...]:
    return (None, [None] * ctx.n_outs, *[None] * 6)


torch.library.register_autograd("fastdiff_ops::abs_quantile", _backward, setup_context=_no_gradient)
register_reference("abs_quantile", reference.abs_quantile)
