"""Evaluation of the model: one branch, or two for classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .packing import coef_dtype
from .start import DTYPES

Model = Callable[..., Tensor]
BATCHINGS = ("concat", "two_calls")


class Branches:
    """What is called at each evaluation, and how its outputs are combined.

    Parameters
    ----------
    scaled : bool
        Whether the network's input is scaled.

    Attributes
    ----------
    copies : int
        How often the network's input repeats the state along the batch axis.
    weights : Tensor [1, 2, 1 or B, K] of `coef_dtype`, or None
        Guidance weights for `ops.solver_step`; None for a single output.
    evaluate : callable
        (network input, times) -> list of K outputs like x.
    """

    def __init__(
        self,
        model: Model,
        x: Tensor,
        model_kwargs: Mapping[str, Any] | None,
        guidance_scale: Tensor | None,
        uncond_kwargs: Mapping[str, Any] | None,
        batching: str,
        scaled: bool,
    ) -> None:
        if batching not in BATCHINGS:
            names = ", ".join(BATCHINGS)
            raise ValueError(f"`guidance_batching` must be one of {names}, got {batching!r}")
        cond = dict(model_kwargs or {})
        self.copies, self.weights = 1, None
        if guidance_scale is None:
            if uncond_kwargs is not None:
                raise ValueError("`uncond_kwargs` has no effect without `guidance_scale`")
            self.evaluate = _checked(model, x, cond, 1, scaled)
            return
        if uncond_kwargs is None:
            raise ValueError("`guidance_scale` needs `uncond_kwargs`, the arguments without the condition")
        self.weights = _guidance_weights(guidance_scale, x)
        uncond, batch = {**cond, **uncond_kwargs}, x.shape[0]
        if batching == "two_calls":
            with_cond, without = _checked(model, x, cond, 1, scaled), _checked(model, x, uncond, 1, scaled)

            def both_calls(x: Tensor, t: Tensor) -> list[Tensor]:
                outs = without(x, t) + with_cond(x, t)
                if outs[0].dtype != outs[1].dtype:
                    dtypes = " and ".join(str(out.dtype) for out in outs)
                    raise TypeError(f"`model` must return one dtype for both branches, got {dtypes}")
                return outs

            self.evaluate = both_calls
            return
        if missing := uncond_kwargs.keys() - cond.keys():
            raise ValueError(
                f"`uncond_kwargs` has {', '.join(sorted(missing))}, which `model_kwargs` lacks; one batch "
                "needs the same arguments for both branches: use guidance_batching='two_calls'"
            )
        self.copies = 2
        both = _checked(model, x, _merge(uncond, cond, batch, "uncond_kwargs"), 2, scaled=True)

        def halves(x: Tensor, t: Tensor) -> list[Tensor]:
            out = both(x, t)[0]
            return [out[:batch], out[batch:]]

        self.evaluate = halves


def _guidance_weights(scale: Tensor, x: Tensor) -> Tensor:
    """o = (1 - w) o_uncond + w o_cond, with nothing that bypasses the solver."""
    if scale.shape not in ((), (1,), (x.shape[0],)):
        raise ValueError(
            f"`guidance_scale` must be a number or [{x.shape[0]}], got shape {tuple(scale.shape)}"
        )
    if not torch.compiler.is_compiling() and scale.device.type == "cpu" and not scale.isfinite().all():
        raise ValueError(f"`guidance_scale` must be finite, got {scale.tolist()}")
    w = scale.to(x.device, coef_dtype(x.device)).reshape(-1)
    g = torch.stack([1.0 - w, w], dim=-1)
    return torch.stack([g, torch.zeros_like(g)])[None]


def _checked(
    model: Model, x: Tensor, kwargs: Mapping[str, Any], copies: int, scaled: bool
) -> Callable[[Tensor, Tensor], list[Tensor]]:
    """The model, returning a list of one checked output; one of its own where the step writes the input."""
    shape = torch.Size([copies * x.shape[0], *x.shape[1:]])
    device, dtype = x.device, x.dtype

    def call(net_in: Tensor, t: Tensor) -> list[Tensor]:
        out = model(net_in, t, **kwargs)
        good = isinstance(out, Tensor) and out.shape == shape and out.device == device
        if not good or out.dtype not in DTYPES:
            _refuse(out, shape, device)
        if not scaled:
            return [out]
        # the step writes that input in the dtype of the outputs, and x is what the network was given
        if out.dtype != dtype:
            return [out.to(dtype)]
        return [out.clone() if _share_memory(out, net_in) else out]

    return call


def _share_memory(a: Tensor, b: Tensor) -> bool:
    """Whether both are (views of) one tensor; never in a traced graph, where nothing is written in place."""
    if torch.compiler.is_compiling():
        return False
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _refuse(out: object, shape: torch.Size, device: torch.device) -> None:
    if not isinstance(out, Tensor):
        raise TypeError(
            f"`model` must return a Tensor, got {type(out).__name__}; for a diffusers network pass "
            "`lambda x, t, **kw: net(x, t, **kw).sample`"
        )
    if out.device != device:
        raise ValueError(f"`model` must return a tensor on {device}, got {out.device}")
    if out.dtype not in DTYPES:
        raise TypeError(f"`model` must return float16, bfloat16, float32 or float64, got {out.dtype}")
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
