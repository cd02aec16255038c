"""`sample`: any model, any solver table, one operator call per model evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, overload

import torch
from torch import Tensor

from fastdiff_ops.schedules import NoiseSchedule

from .branches import Branches, Model
from .loop import Run, run_functional, run_in_place
from .memory import dense, empty_like, empty_ring, ring_like
from .noise import FIRST_EVALUATION, Seeds, advance, at_draw, check_draws, check_seed, run_rng
from .observers import Inpainting, StepInfo, check_outputs, watcher
from .packing import coef_dtype
from .start import DTYPES, clip_settings, initial_state, latents_like, resolve_table
from .state import TrajectoryState
from .table import SolverTable

Callback = Callable[[StepInfo], Any]
State = TrajectoryState | str | os.PathLike[str]


@overload
def sample(
    model: Model,
    x: Tensor | Sequence[int] | None,
    table: SolverTable | str,
    *,
    return_trajectory: Literal[True],
    **kwargs: Any,
) -> tuple[Tensor, Tensor]: ...
@overload
def sample(
    model: Model, x: Tensor | Sequence[int] | None, table: SolverTable | str, **kwargs: Any
) -> Tensor: ...
def sample(  # type: ignore[misc]  # the overloads abbreviate the keywords
    model: Model,
    x: Tensor | Sequence[int] | None,
    table: SolverTable | str,
    *,
    prediction_type: str | None = None,
    schedule: NoiseSchedule | None = None,
    num_steps: int | None = None,
    spacing: str | None = None,
    spacing_options: Mapping[str, Any] | None = None,
    solver_options: Mapping[str, Any] | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    guidance_scale: float | Tensor | None = None,
    uncond_kwargs: Mapping[str, Any] | None = None,
    guidance_batching: Literal["concat", "two_calls"] = "concat",
    init_image: Tensor | None = None,
    strength: float | None = None,
    inpaint_image: Tensor | None = None,
    inpaint_mask: Tensor | None = None,
    clip: Literal["static", "dynamic"] | None = None,
    clip_value: float | None = None,
    clip_quantile: float | None = None,
    clip_cap: float | None = None,
    seed: Seeds = None,
    offset: int = 0,
    sample_ids: Tensor | Sequence[int] | None = None,
    history_dtype: torch.dtype | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    return_trajectory: bool = False,
    check_finite: bool = False,
    differentiable: bool | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Draw samples: evaluate the model along the table, with one fused update after each evaluation.

    Parameters
    ----------
    model : callable
        ``model(x, t, **kwargs) -> Tensor`` like x; t is [B] in the model's own unit, float64 if x is, else
        float32.
    x : Tensor [B, *S], shape, or None
        Initial latents as they are; or a shape, for sigma(T) z; or None with `init_image`.
    table : SolverTable or str
        A solver's name stands for `make_table` on `num_steps` steps of the `schedule`.
    prediction_type : str
        What the model predicts: "eps", "x0", "v", "score", "velocity" or "edm". May be left out for a bound
        table.
    schedule, num_steps, spacing, spacing_options, solver_options
        Only with a solver's name. Times are ``schedules.timesteps(schedule, num_steps, spacing,
        **spacing_options)``: options are `family`, `final_sigma` and the spacing's own, such as `rho`.
        Default spacings: "karras" and a last step to 0 on VE and EDM, "time_uniform" on flow matching,
        diffusers' "trailing" (family "dpm") on a discrete table, else "logSNR".
    model_kwargs : mapping, optional
        Further arguments of the model.
    guidance_scale : float or Tensor [B], optional
        Classifier-free guidance, o = o_uncond + w (o_cond - o_uncond); 1 is no guidance.
    uncond_kwargs : mapping, optional
        What replaces entries of `model_kwargs` in the unconditional branch.
    guidance_batching : "concat" or "two_calls"
        Both branches in one call on a doubled batch, unconditional half first; or one call each.
    init_image : Tensor [B, *S], optional
        Start from this image, noised to the first time of the table.
    strength : float in (0, 1], optional
        With `init_image` and a solver's name: make only the last int(strength num_steps) steps.
    inpaint_image, inpaint_mask : Tensor, optional
        Where the mask (0 to 1, broadcastable) is 0, every state is replaced by the image noised to its level.
    clip : None, "static" or "dynamic"
        Clip x0 to [-clip_value, clip_value]; or clip it to the `clip_quantile` of each sample's magnitudes,
        at least `clip_value` and at most `clip_cap`, and divide by that (Imagen, arXiv 2205.11487). For
        pixel-space models.
    clip_value : float, optional
        With `clip`; 1.0 unless given.
    clip_quantile, clip_cap : float, optional
        With ``clip="dynamic"``; 0.995 and no cap unless given.
    seed : int, torch.Generator, PhiloxState, None, or int64 [B]
        Of the latents and all noise; None draws one. With a seed per sample no sample depends on its batch.
    offset : int
        Added to all draw numbers: 0 for the latents, 1 + e for evaluation e.
    sample_ids : int64 [B], optional
        Keys each sample's noise; default its place in the batch.
    history_dtype : dtype, optional
        Of stored values; default float32 for half-precision x, else that of x.
    dtype, device : optional
        Of latents drawn for a shape; default float32 on the default device.
    callback : callable, optional
        Called with a `StepInfo` after each solver step; a true return value ends the run there.
    progress : bool
        Show a tqdm bar.
    return_trajectory : bool
        Also return the state before the first and after each solver step.
    check_finite : bool
        Raise where outputs or states stop being finite. Synchronises at each evaluation.
    differentiable : bool, optional
        Record gradients. Default: if grad mode is on and x requires one; for gradients of the model's
        parameters alone say True.

    Returns
    -------
    Tensor [B, *S]
        The last state, in the dtype of x.
    Tensor [n_steps + 1, B, *S]
        Only with `return_trajectory`.

    Raises
    ------
    ValueError, TypeError
        A bad argument; the message names it.
    FloatingPointError
        With `check_finite`; the message names the step.

    Notes
    -----
    The model is given the run's own buffers, which are reused: it must not write to them, nor keep them
    without a clone. Under torch.compile, bind the table outside of the compiled function.

    A `PhiloxState` given as seed is moved on by 1 + evaluations of the table whenever a run returns: also
    when a callback ended it early (so that resuming it later uses numbers that no other run has) and when
    nothing was drawn (so that what follows does not depend on `eta`, or on where the latents came from). A
    run that raises leaves it, to be repeated. A `torch.Generator` or None is read only if something is drawn.

    Examples
    --------
    >>> import torch
    >>> from fastdiff_ops.schedules import FlowMatching
    >>> from fastdiff_ops.solvers import sample
    >>> def velocity(x, t):  # of a point mass at 1
    ...     return (x - 1.0) / t.view(-1, 1)
    >>> sample(velocity, (2, 3), "euler", prediction_type="velocity", schedule=FlowMatching(), num_steps=4)
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    if strength is not None and init_image is None:
        raise ValueError("`strength` needs `init_image`")
    clipping = clip_settings(clip, clip_value, clip_quantile, clip_cap)
    table = resolve_table(
        table, prediction_type, schedule, num_steps, spacing, spacing_options, solver_options, strength
    )
    like = latents_like(x, init_image, dtype, device)
    given = isinstance(x, Tensor)
    inpainting = inpaint_image is not None or inpaint_mask is not None
    check_draws(seed, offset, len(table), inpainting)
    rng = None
    if not given or inpainting or (table.packed is not None and table.packed.noisy):
        rng = run_rng(seed, offset, sample_ids, like)
    else:
        check_seed(seed, offset, sample_ids, like)
    state = TrajectoryState(
        table=table,
        evaluation=0,
        x=like if given else initial_state(table, like, init_image, rng),
        anchor=None,
        history=None,
        rng=rng,
        settings={**clipping, "guidance_batching": guidance_batching, "inpainting": inpainting},
        guidance_scale=_scale(guidance_scale),
    )
    result = resume(
        model,
        state,
        model_kwargs=model_kwargs,
        uncond_kwargs=uncond_kwargs,
        inpaint_image=inpaint_image,
        inpaint_mask=inpaint_mask,
        history_dtype=history_dtype,
        callback=callback,
        progress=progress,
        return_trajectory=return_trajectory,
        check_finite=check_finite,
        differentiable=differentiable,
    )
    advance(seed, len(table))
    return result


@overload
def resume(
    model: Model, state: State, *, return_trajectory: Literal[True], **kwargs: Any
) -> tuple[Tensor, Tensor]: ...
@overload
def resume(model: Model, state: State, **kwargs: Any) -> Tensor: ...
def resume(  # type: ignore[misc]  # the overloads abbreviate the keywords
    model: Model,
    state: State,
    *,
    model_kwargs: Mapping[str, Any] | None = None,
    uncond_kwargs: Mapping[str, Any] | None = None,
    inpaint_image: Tensor | None = None,
    inpaint_mask: Tensor | None = None,
    history_dtype: torch.dtype | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    return_trajectory: bool = False,
    check_finite: bool = False,
    differentiable: bool | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Continue a run from a snapshot, bit for bit as if it had not been interrupted.

    Parameters
    ----------
    model : callable
        The same model.
    state : TrajectoryState or path
        From `StepInfo.state`, or the file in which it was saved. It is not changed.
    model_kwargs, uncond_kwargs, inpaint_image, inpaint_mask
        As in the interrupted call; a state does not hold them.
    history_dtype : dtype, optional
        Only of a state that has no history yet; else it has a dtype already.
    callback, progress, return_trajectory, check_finite, differentiable
        As for `sample`; a trajectory begins with the snapshot.

    Returns
    -------
    As `sample`.

    Raises
    ------
    As `sample`, and ValueError for arguments that the interrupted run did not have.
    """
    if not isinstance(state, TrajectoryState):
        state = TrajectoryState.load(state)
    if callback is not None and not callable(callback):
        raise TypeError(f"`callback` must be callable, got {type(callback).__name__}")
    if history_dtype is not None and history_dtype not in DTYPES:
        raise TypeError(f"`history_dtype` must be a floating-point dtype, got {history_dtype!r}")
    run = _prepare(model, state, model_kwargs, uncond_kwargs, history_dtype)
    if (inpaint_image is None) != (inpaint_mask is None):
        raise ValueError("`inpaint_image` and `inpaint_mask` go together")
    if state.settings["inpainting"] != (inpaint_mask is not None):
        was = "with" if state.settings["inpainting"] else "without"
        raise ValueError(f"`state` is of a run {was} `inpaint_mask`, which must go on {was} one")
    if inpaint_image is not None and inpaint_mask is not None:
        _inpaint(run, state, Inpainting(inpaint_image, inpaint_mask, run.x, state.rng))
    states = [run.x.clone()] if return_trajectory else None
    bar = _progress_bar(len(run.table), state.evaluation) if progress else None
    run.check = check_outputs(run) if check_finite else None
    run.watch = watcher(run, state, states, callback, bar, check_finite)
    if differentiable is None:
        differentiable = torch.is_grad_enabled() and run.x.requires_grad
    try:
        with torch.set_grad_enabled(differentiable):
            functional = differentiable or torch.compiler.is_compiling()
            x = run_functional(run) if functional else run_in_place(run)
    finally:
        if bar is not None:
            bar.close()
    return x if states is None else (x, torch.stack(states))


def _scale(guidance_scale: Any) -> Tensor | None:
    if guidance_scale is None:
        return None
    if isinstance(guidance_scale, Tensor):
        return guidance_scale.to(coef_dtype(guidance_scale.device))
    if not isinstance(guidance_scale, Real | torch.SymFloat):
        raise TypeError(f"`guidance_scale` must be a number or a Tensor, got {type(guidance_scale).__name__}")
    return torch.as_tensor(guidance_scale, dtype=torch.float64)


def _prepare(
    model: Model,
    state: TrajectoryState,
    model_kwargs: Mapping[str, Any] | None,
    uncond_kwargs: Mapping[str, Any] | None,
    history_dtype: torch.dtype | None,
) -> Run:
    """Everything that can be done before the loop."""
    table, settings = state.table, state.settings
    packed = table.packed
    if packed is None:
        raise ValueError("`state` holds a table that is not bound")
    x = dense(state.x)
    if ("row" in table.anchor and "keep" in table.anchor) or state.evaluation == len(table):
        x = x.clone()  # it may become an anchor that is written to, or is the result itself
    device, numbers = x.device, coef_dtype(x.device)
    guidance = (state.guidance_scale, uncond_kwargs, settings["guidance_batching"])
    branches = Branches(model, x, model_kwargs, *guidance, scaled=packed.scaled)
    coef = table.coefficients(clip=settings["clip"], clip_value=settings["clip_value"])
    limits = (settings["clip_quantile"], settings["clip_value"], settings["clip_cap"])
    history = None
    if state.history is not None:
        if history_dtype not in (None, state.history.dtype):
            raise ValueError(
                f"`history_dtype` must be that of `state`, {state.history.dtype}, got {history_dtype}"
            )
        history = ring_like(x, state.history)
    elif table.n_hist:
        half = x.dtype in (torch.float16, torch.bfloat16)
        history = empty_ring(x, table.n_hist, history_dtype or (torch.float32 if half else x.dtype))
    times = packed.t_eval.to(device, torch.float64 if x.dtype == torch.float64 else torch.float32)
    return Run(
        table=table,
        packed=packed,
        start=state.evaluation,
        x=x,
        anchor=None if state.anchor is None else empty_like(x).copy_(state.anchor),
        history=history,
        evaluate=branches.evaluate,
        copies=branches.copies,
        coef=coef.to(device, numbers),
        steps=torch.arange(len(table), device=device).unbind(0),
        times=times[:, None].repeat(1, branches.copies * x.shape[0]).unbind(0),
        weights=branches.weights,
        elem=None if packed.elem is None else packed.elem.to(device, numbers),
        elem_map=None if packed.elem_map is None else packed.elem_map.to(device),
        rng=None if state.rng is None else at_draw(state.rng, FIRST_EVALUATION),
        clip=settings["clip"],
        clip_limits=limits,
        blend=None,
        check=None,
        watch=None,
    )


def _inpaint(run: Run, state: TrajectoryState, inpainting: Inpainting) -> None:
    levels = run.packed.levels
    if state.evaluation == 0:
        run.x = inpainting.blend(run.x, run.packed.alpha, run.packed.sigma, 0)
    run.blend = lambda x, e: inpainting.blend(x, *levels[e], e + 1)


def _progress_bar(total: int, done: int) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, initial=done, unit="eval")
