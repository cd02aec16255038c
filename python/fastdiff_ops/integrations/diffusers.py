"""Every solver of the library as a scheduler of diffusers pipelines.

pipe.scheduler = FastDiffScheduler.from_config(pipe.scheduler.config, solver="unipc", order=3)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import (
    KarrasDiffusionSchedulers,
    SchedulerMixin,
    SchedulerOutput,
)
from torch import Tensor

from fastdiff_ops.ops.random import PhiloxState, make_rng, resolve_seed
from fastdiff_ops.schedules import FlowMatching
from fastdiff_ops.solvers import SolverTable, make_table

from ._diffusers_config import PREDICTIONS, family_of, nodes_of, schedule_of, translated
from ._requests import Request

__all__ = ["FastDiffScheduler"]

_REQUESTS = 16  # that one scheduler remembers
Generators = torch.Generator | Sequence[torch.Generator] | None


class FastDiffScheduler(SchedulerMixin, ConfigMixin):
    r"""A solver of `fastdiff_ops.solvers` in place of a diffusers scheduler.

    Parameters
    ----------
    num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, rescale_betas_zero_snr
        The noise schedule, as in diffusers.
    prediction_type : "epsilon", "sample", "v_prediction" or "flow_prediction"
    solver : str
        One of `fastdiff_ops.solvers.solver_names()`. `from_config` takes the equal of the scheduler that the
        configuration belongs to, and "dpmpp_2m" where it has none.
    order : int or float, optional
        The solver's option of that name.
    solver_options : dict, optional
        Its other options.
    timestep_spacing, steps_offset, final_sigmas_type, use_karras_sigmas, use_exponential_sigmas, \
use_beta_sigmas
        Time steps, as diffusers' scheduler of the solver's family has them.
    thresholding, dynamic_thresholding_ratio, sample_max_value, clip_sample, clip_sample_range
        Clipping of the data prediction, as in diffusers.
    shift, use_dynamic_shifting, shift_terminal, time_shift_type, base_shift, max_shift, \
base_image_seq_len, max_image_seq_len
        Of flow matching, as in FlowMatchEulerDiscreteScheduler.

    Raises
    ------
    ValueError, TypeError
        An unknown solver, prediction type or option.

    Notes
    -----
    A step is one operator call and waits for nothing: it finds its place from the storage of the time step it
    is given, which is a view of `timesteps`, so that requests that share the scheduler do not disturb each
    other, each with the `timesteps` that it got. Other time steps (a copy, one per sample) are found by
    value on the host, or on their device if there is one for each sample.

    Latents are those of the variance-preserving process for every solver: `scale_model_input` does nothing.

    Examples
    --------
    >>> import torch
    >>> scheduler = FastDiffScheduler(solver="unipc", order=3)
    >>> scheduler.set_timesteps(10)
    >>> x = torch.randn(1, 3, 8, 8) * scheduler.init_noise_sigma
    >>> for t in scheduler.timesteps:
    ...     x = scheduler.step(0.1 * x, t, x).prev_sample
    >>> bool(x.isfinite().all())
    True
    """

    _compatibles = [e.name for e in KarrasDiffusionSchedulers] + ["FlowMatchEulerDiscreteScheduler"]
    order = 1

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: list[float] | None = None,
        prediction_type: str = "epsilon",
        solver: str = "dpmpp_2m",
        order: float | None = None,
        solver_options: dict[str, Any] | None = None,
        timestep_spacing: str = "linspace",
        steps_offset: int = 0,
        final_sigmas_type: str = "zero",
        use_karras_sigmas: bool = False,
        use_exponential_sigmas: bool = False,
        use_beta_sigmas: bool = False,
        rescale_betas_zero_snr: bool = False,
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        shift: float = 1.0,
        use_dynamic_shifting: bool = False,
        base_shift: float = 0.5,
        max_shift: float = 1.15,
        base_image_seq_len: int = 256,
        max_image_seq_len: int = 4096,
        shift_terminal: float | None = None,
        time_shift_type: str = "exponential",
    ) -> None:
        if prediction_type not in PREDICTIONS:
            known = ", ".join(PREDICTIONS)
            raise ValueError(f"`prediction_type` must be one of {known}, got {prediction_type!r}")
        self._schedule = schedule_of(self.config)
        self._flow = isinstance(self._schedule, FlowMatching)
        # each `set_timesteps` makes another tensor, whose memory is the request's name
        self._plans: OrderedDict[int, _Plan] = OrderedDict()
        self._uses: dict[int, int] = {}
        self.begin_index: int | None = None
        self._plan: _Plan | None = None
        self.num_inference_steps: int | None = None
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1)
        self.sigmas = torch.empty(0)

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Take over another scheduler's configuration; keywords replace its entries."""
        if isinstance(config, Mapping):
            kwargs = {**translated(config, kwargs), **kwargs}
            # diffusers would replace what was another class's default by ours
            config = {key: value for key, value in config.items() if key != "_use_default_values"}
        return super().from_config(config, return_unused_kwargs=return_unused_kwargs, **kwargs)

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the latents that a run begins with."""
        # diffusers' Euler family starts from sigma_max where its first time step is the last of training
        plan = self._plan
        exact = self._flow or (
            family_of(self.config["solver"]) == "euler" and self.config["timestep_spacing"] != "leading"
        )
        return float(plan.table.sigma[0]) if exact and plan is not None else 1.0

    def __len__(self) -> int:
        return int(self.config["num_train_timesteps"])

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        sigmas: Sequence[float] | None = None,
        timesteps: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Plan a run; what is under way with another `timesteps` goes on.

        Parameters
        ----------
        num_inference_steps : int
            Steps of the solver; methods with stages evaluate the model more often.
        device : torch.device or str, optional
        sigmas, timesteps : sequence of float, optional
            Noise levels or times of the steps instead, without the final one.
        mu : float, optional
            Resolution-dependent shift of flow matching.

        Raises
        ------
        ValueError
            None of the three, or times that no sampler can follow.
        """
        if num_inference_steps is None and sigmas is None and timesteps is None:
            raise ValueError("`num_inference_steps`, `sigmas` or `timesteps` must be given")
        config = self.config
        nodes = nodes_of(config, self._schedule, num_inference_steps, config["solver"], sigmas, timesteps, mu)
        plan = _Plan(self, nodes, device)
        self._plans[plan.key] = self._plan = plan
        while len(self._plans) > _REQUESTS:
            self._plans.popitem(last=False)
        self.num_inference_steps = len(nodes) - 1
        self.timesteps, self.sigmas = plan.timesteps, plan.sigmas
        self.order = -(-len(plan.table) // (len(nodes) - 1))
        self.begin_index = None

    def set_begin_index(self, begin_index: int = 0) -> None:
        """For pipelines that start in the middle; steps find their place without it."""
        self.begin_index = begin_index

    @property
    def step_index(self) -> int | None:
        """Evaluation that comes next, None before the first."""
        return None if self._plan is None else self._plan.request.next

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """Return the sample: the network's input needs no scale."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generators = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
        **_: Any,
    ) -> SchedulerOutput | tuple[Tensor]:
        """Make the update after an evaluation of the model.

        Parameters
        ----------
        model_output : Tensor
            Of the network; twice the sample's channels (a learned variance) are cut to the first half.
        timestep : Tensor or number
            An element of `timesteps`; or a tensor with one for each sample.
        sample : Tensor
        generator : torch.Generator or one for each sample, optional
            Its seed keys the noise, which is the same for every dtype and device.
        variance_noise : Tensor, optional
            Noise instead.
        return_dict : bool

        Returns
        -------
        SchedulerOutput or tuple
            `prev_sample`.

        Raises
        ------
        ValueError
            A time step of no run, or one inside of a solver's step to begin with.
        """
        if model_output.dim() > 1 and model_output.shape[1] == 2 * sample.shape[1]:
            model_output = model_output[:, : sample.shape[1]]
        if model_output.shape != sample.shape:
            given, wanted = tuple(model_output.shape), tuple(sample.shape)
            raise ValueError(f"`model_output` must have the shape of `sample`, {wanted}, got {given}")
        if self._plan is None:
            raise ValueError("`set_timesteps` must be called before `step`")
        compiling = torch.compiler.is_compiling()
        differentiable = torch.is_grad_enabled() and (model_output.requires_grad or sample.requires_grad)
        if isinstance(timestep, Tensor) and timestep.dim() == 1 and len(timestep) > 1:
            x = self._step_each(self._plan, model_output, timestep, sample, generator, variance_noise)
        else:
            plan, e = (self._plan, None) if compiling else self._place(self._plan, timestep)
            if compiling:  # `timesteps` cannot be recognised: the steps are taken in turn
                if plan.request.next >= len(plan.table):
                    plan.request = plan.request.again()
                request = plan.request
            else:
                request = self._request(plan, e, sample, generator)
            if compiling or differentiable:
                x = request.step_functional(model_output, sample, variance_noise)
            else:
                x = request.step(model_output.detach(), sample.detach(), variance_noise)
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)

    def _place(self, current: _Plan, timestep: Any) -> tuple[_Plan, int | None]:
        """Whose time step it is, and its number."""
        if isinstance(timestep, Tensor):
            key = timestep.untyped_storage().data_ptr()
            if key in self._plans:
                return self._plans[key], int(timestep.storage_offset())
            if timestep.device.type != "cpu":
                return current, None
            timestep = timestep.item()
        plan = current
        following = max(plan.request.next, self.begin_index or 0)
        # a method with stages may come to a time twice
        matches = [e for e, t in enumerate(plan.times) if t == timestep]
        if not matches:
            raise ValueError(f"`timestep` must be one of `timesteps`, got {timestep}")
        return plan, min(matches, key=lambda e: abs(e - following))

    def _request(self, plan: _Plan, e: int | None, sample: Tensor, generator: Generators) -> Request:
        """The run that evaluation e belongs to: the one under way, or a new one that begins there."""
        request = plan.request
        if e is None:
            e = request.next if request.next < len(plan.table) else 0
        if request.next != e or request.coef.device != sample.device:
            request = plan.request = plan.begin(self, e, sample.device)
        packed = request.table.packed
        if request.rng is None and packed is not None and packed.noisy:
            request.rng = self._rng(generator, 1 + e, sample)
        return request

    def _rng(self, generator: Generators, offset: int, sample: Tensor) -> Tensor:
        """Noise keyed by generators' seeds; the n-th run with a generator has its n-th stream."""
        if generator is None:
            return make_rng(resolve_seed(None), offset, batch=len(sample), device=sample.device)
        each = [generator] if isinstance(generator, torch.Generator) else list(generator)
        seeds = []
        for one in each:
            seed = one.initial_seed()
            uses = self._uses[seed] = self._uses.get(seed, -1) + 1
            seeds.append(PhiloxState(seed).fork(uses).seed)
        if isinstance(generator, torch.Generator):
            return make_rng(seeds[0], offset, batch=len(sample), device=sample.device)
        signed = [seed - (1 << 64) if seed >= 1 << 63 else seed for seed in seeds]
        return make_rng(signed, offset, batch=len(sample), device=sample.device)

    def _step_each(
        self,
        plan: _Plan,
        model_output: Tensor,
        timesteps: Tensor,
        sample: Tensor,
        generator: Generators,
        noise: Tensor | None,
    ) -> Tensor:
        """A step with a time of its own for each sample, all of which come to their next one together."""
        if len(timesteps) != len(sample):
            raise ValueError(
                f"`timestep` must hold one for each of {len(sample)} samples, got {len(timesteps)}"
            )
        request = self._request(plan, None, sample, generator)
        rows = (plan.timesteps.to(sample.device)[None] == timesteps[:, None]).int().argmax(1)
        return request.step_functional(model_output, sample, noise, rows)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return alpha x0 + sigma noise at a time for each sample, [B] or a number."""
        alpha, sigma = self._levels(timesteps, original_samples)
        return alpha * original_samples + sigma * noise

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise` by the name and order of arguments of flow-matching schedulers."""
        return self.add_noise(sample, noise, timestep)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what a model of "v_prediction" learns: alpha noise - sigma x0."""
        alpha, sigma = self._levels(timesteps, sample)
        return alpha * noise - sigma * sample

    def _levels(self, timesteps: Any, like: Tensor) -> tuple[Tensor, Tensor]:
        t = torch.as_tensor(timesteps, device=like.device).double().reshape(-1, *[1] * (like.dim() - 1))
        t = t / self.config["num_train_timesteps"] if self._flow else t
        return self._schedule.alpha(t).to(like.dtype), self._schedule.sigma(t).to(like.dtype)


class _Plan:
    """The nodes and the table of one `set_timesteps`, and the run that goes through them."""

    def __init__(self, scheduler: FastDiffScheduler, nodes: Any, device: torch.device | str | None) -> None:
        self.nodes = nodes
        self.table = self._table(scheduler, 0)
        scale = scheduler.config["num_train_timesteps"] if scheduler._flow else 1.0
        times = self.table.t_eval * scale
        if scheduler.config["use_karras_sigmas"] and family_of(scheduler.config["solver"]) == "dpm":
            times = times if scheduler._flow else times.round()  # as diffusers does in this family
        whole = not scheduler._flow and bool((times == np.round(times)).all())
        dtype = torch.int64 if whole else torch.float32
        self.timesteps = torch.from_numpy(times).to(dtype).to(device)
        self.times = torch.from_numpy(times).to(dtype).tolist()
        self.key = self.timesteps.untyped_storage().data_ptr()
        schedule = scheduler._schedule
        levels = schedule.sigma(nodes) if scheduler._flow else schedule.nsr(nodes)
        self.sigmas = torch.from_numpy(np.asarray(levels)).float()
        self.request = self.begin(scheduler, 0, self.timesteps.device)

    def begin(self, scheduler: FastDiffScheduler, e: int, device: torch.device) -> Request:
        """A run from evaluation e on."""
        if not 0 <= e < len(self.table):
            raise ValueError(f"`timestep` must be one of {len(self.table)}, got number {e}")
        if e > 0 and self.table.anchor[e - 1] == "keep" and scheduler.order > 1:
            raise ValueError(f"`timestep` number {e} is inside of a step of {scheduler.config['solver']!r}")
        steps = sum(mode != "keep" for mode in self.table.anchor[:e]) if scheduler.order > 1 else e
        table = self.table if e == 0 else self._table(scheduler, steps)
        config = scheduler.config
        clip = "dynamic" if config["thresholding"] else ("static" if config["clip_sample"] else None)
        limits = (config["dynamic_thresholding_ratio"], 1.0, config["sample_max_value"])
        return Request.start(table, e, clip, config["clip_sample_range"], limits, device)

    def _table(self, scheduler: FastDiffScheduler, first: int) -> SolverTable:
        config = scheduler.config
        options = dict(config["solver_options"] or {})
        if config["order"] is not None:
            options["order"] = config["order"]
        table = make_table(config["solver"], scheduler._schedule, self.nodes[first:], **options)
        return table.bind(PREDICTIONS[config["prediction_type"]])
