"""Evaluation of the model: one branch, or two for classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Model = Callable[..., Tensor]
BATCHINGS = ("concat", "two_calls")


class Branches:
    """What is called at each evaluation, and how its outputs are combined.

    Attributes
    ----------
    copies : int
        How often the network's input repeats the state along the batch axis.
    weights : float64 Tensor [1, 2, 1 or B, K] or None
        Guidance weights for `ops.solver_step`; None for a single output.
    evaluate : callable
        (network input, times) -> list of K outputs like x.
    """

    def __init__(
        self,
        model: Model,
        x: Tensor,
        model_kwargs: Mapping[str, Any] | None,
        guidance_scale: float | Tensor | None,
        uncond_kwargs: Mapping[str, Any] | None,
        batching: str,
    ) -> None:
        cond = dict(model_kwargs or {})
        self.copies = 1
        self.weights = _guidance_weights(guidance_scale, x)
        if batching not in BATCHINGS:
            names = ", ".join(BATCHINGS)
            raise ValueError(f"`guidance_batching` must be one of {names}, got {batching!r}")
        if self.weights is None:
            if uncond_kwargs is not None:
                raise ValueError("`uncond_kwargs` has no effect without `guidance_scale`")
            self.evaluate = _one_call(model, x, cond)
            return
        if uncond_kwargs is None:
            raise ValueError("`guidance_scale` needs `uncond_kwargs`, the arguments without the condition")
        uncond = {**cond, **uncond_kwargs}
        if batching == "two_calls":
            with_cond, without = _one_call(model, x, cond), _one_call(model, x, uncond)
            self.evaluate = lambda x, t: without(x, t) + with_cond(x, t)
        else:
            if missing := uncond_kwargs.keys() - cond.keys():
                raise ValueError(
                    f"`uncond_kwargs` has {', '.join(sorted(missing))}, which `model_kwargs` lacks; one "
                    "batch needs the same arguments for both branches: use guidance_batching='two_calls'"
                )
            self.copies = 2
            self.evaluate = _batched_call(model, x, _merge(uncond, cond, x.shape[0], "uncond_kwargs"))


def _guidance_weights(scale: float | Tensor | None, x: Tensor) -> Tensor | None:
    """o = (1 - w) o_uncond + w o_cond, with nothing that bypasses the solver."""
    if scale is None:
        return None
    if isinstance(scale, Tensor):
        if scale.shape not in ((), (1,), (x.shape[0],)):
            raise ValueError(
                f"`guidance_scale` must be a number or [{x.shape[0]}], got shape {tuple(scale.shape)}"
            )
        w = scale.to(x.device, torch.float64).reshape(-1)
    else:
        w = torch.tensor([scale], dtype=torch.float64, device=x.device)
    g = torch.stack([1.0 - w, w], dim=-1)
    return torch.stack([g, torch.zeros_like(g)])[None]


def _one_call(model: Model, x: Tensor, kwargs: Mapping[str, Any]) -> Callable[[Tensor, Tensor], list[Tensor]]:
    shape, device = x.shape, x.device

    def evaluate(net_in: Tensor, t: Tensor) -> list[Tensor]:
        out = model(net_in, t, **kwargs)
        if not isinstance(out, Tensor) or out.shape != shape or out.device != device:
            _refuse(out, shape, device)
        return [out]

    return evaluate


def _batched_call(
    model: Model, x: Tensor, kwargs: Mapping[str, Any]
) -> Callable[[Tensor, Tensor], list[Tensor]]:
    batch, device = x.shape[0], x.device
    shape = torch.Size([2 * batch, *x.shape[1:]])

    def evaluate(net_in: Tensor, t: Tensor) -> list[Tensor]:
        out = model(net_in, t, **kwargs)
        if not isinstance(out, Tensor) or out.shape != shape or out.device != device:
            _refuse(out, shape, device)
        return [out[:batch], out[batch:]]

    return evaluate


def _refuse(out: object, shape: torch.Size, device: torch.device) -> None:
    if not isinstance(out, Tensor):
        raise TypeError(
            f"`model` must return a Tensor, got {type(out).__name__}; for a diffusers network pass "
            "`lambda x, t, **kw: net(x, t, **kw).sample`"
        )
    if out.device != device:
        raise ValueError(f"`model` must return a tensor on {device}, got {out.device}")
    hint = ""
    if out.dim() == len(shape) and out.dim() > 1 and out.shape[1] == 2 * shape[1]:
        hint = (
            "; a network that also predicts its variance needs a wrapper that slices the mean, `out[:, :C]`"
        )
    raise ValueError(
        f"`model` must return the shape of its input, {tuple(shape)}, got {tuple(out.shape)}{hint}"
    )


def _merge(uncond: Any, cond: Any, batch: int, name: str) -> Any:
    """Arguments of one call on a batch that holds the unconditional samples first."""
    if isinstance(cond, Tensor) and isinstance(uncond, Tensor):
        if uncond is cond and (cond.dim() == 0 or cond.shape[0] not in (1, batch)):
            return cond  # not per sample
        sizes = {1, batch}
        fits = cond.dim() > 0 and uncond.dim() > 0 and cond.shape[0] in sizes and uncond.shape[0] in sizes
        if not fits or cond.shape[1:] != uncond.shape[1:]:
            raise ValueError(
                f"`{name}` holds {tuple(uncond.shape)} where `model_kwargs` has {tuple(cond.shape)}; in one "
                f"batch both must be [1 or {batch}, ...] alike: use guidance_batching='two_calls'"
            )
        return torch.cat([part.expand(batch, *part.shape[1:]) for part in (uncond, cond)])
    if isinstance(cond, Mapping) and isinstance(uncond, Mapping) and cond.keys() == uncond.keys():
        return {key: _merge(uncond[key], cond[key], batch, f"{name}[{key!r}]") for key in cond}
    if isinstance(cond, (list, tuple)) and type(cond) is type(uncond) and len(cond) == len(uncond):
        return type(cond)(
            _merge(u, c, batch, f"{name}[{k}]") for k, (u, c) in enumerate(zip(uncond, cond, strict=True))
        )
    if isinstance(cond, Tensor) or isinstance(uncond, Tensor) or cond != uncond:
        raise ValueError(
            f"`{name}` is {uncond!r:.60} where `model_kwargs` has {cond!r:.60}; in one batch only "
            "tensors may differ: use guidance_batching='two_calls'"
        )
    return cond
