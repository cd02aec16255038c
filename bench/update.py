"""One DPM-Solver++(2M) update in the middle of a trajectory, done by everybody.

Given are the state x, the network's output (noise prediction) and the stored x0 of the step before; wanted
are the next state and the x0 to store. Coefficients are the same for all: Stable Diffusion's betas, step 12
of 25.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from typing import Any

import helpers_k_diffusion  # the tests' way to its samplers, without torchvision
import torch
from fastdiff_ops import ops
from fastdiff_ops.schedules import Discrete, timesteps
from fastdiff_ops.solvers import SolverTable, make_table
from torch import Tensor

from . import bare_loop
from .interleave import Competitor

N_STEPS, STEP = 25, 12
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
STREAM_BYTES = 1 << 20  # below, streaming stores only lose
GRAPH_CALLS = 32  # captured calls per replay: what remains of the launch is not seen
K_SIGMAS = (8.0, 6.5, 5.0, 3.5, 2.0)  # k-diffusion's sampler makes four steps in a call, the first of order 1
CHUNK = 1 << 18  # elements compared at a time
Results = tuple[Tensor, Tensor]  # next state and x0
FUSED, FUSED_SDE, COPY, MEMCPY = "fused", "fused SDE", "torch copy_", "memcpy"


@dataclass(frozen=True)
class Case:
    """What is updated, and where."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()

    def bytes(self, tensors: int) -> int:
        """Of so many tensors of the state's dtype."""
        return tensors * self.numel * self.dtype.itemsize

    def randn(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(self.shape, generator=generator).to(self.device, self.dtype)


class Update:
    """The tensors and coefficients, and the competitors on them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.x, self.out, self.old = (case.randn(seed) for seed in range(3))
        self.table = make_solver("dpmpp_2m")
        assert self.table.conv is not None
        row = self.table.step(STEP).state
        c_x, c_o = self.table.conv[STEP].tolist()
        self.weights = (c_x, c_o, row.state, row.output, row.history[0])

    def competitors(self) -> Iterator[Competitor]:
        """Everybody who can run here."""
        cuda, five = self.case.device.type == "cuda", self.case.bytes(5)
        call, results = self.fused(self.table, self.case.dtype)
        call()
        self._check(FUSED, results)
        note = "overwrites the stored x0 that it reads, four buffers in all; the bare loop writes a fifth"
        yield self._captured(FUSED, call, five, note)
        yield Competitor(
            "fused, checked",
            self.fused_checked(),
            five,
            note="through the Python wrapper, which validates arguments",
        )
        if self.case.dtype.itemsize == 2:
            call, _ = self.fused(self.table, torch.float32)
            moved = self.case.bytes(3 + 2 * 2)
            yield self._captured(
                "fused, float32 history", call, moved, "as `sample` stores half-precision runs"
            )
        call, _ = self.fused(make_solver("dpmpp_2m_sde"), self.case.dtype)
        yield self._captured(FUSED_SDE, call, five, "SDE-DPM-Solver++(2M); noise drawn in the kernel")
        yield from self._torch()
        yield from self._diffusers()
        yield from self._k_diffusion()
        target = torch.empty_like(self.x)
        yield self._captured(COPY, lambda: target.copy_(self.x), self.case.bytes(2))
        if not cuda:
            yield Competitor(
                MEMCPY, bare_loop.copy(self.x, target), self.case.bytes(2), note="always one thread"
            )
            yield from self._bare_loop()

    def fused(self, table: SolverTable, history_dtype: torch.dtype) -> tuple[Callable[[], object], Results]:
        """The operator as `sample` calls it, everything preallocated; and what receives its results."""
        positional, x_next, history = self._arguments(table, history_dtype)
        step_ = torch.ops.fastdiff_ops.solver_step_.default
        return lambda: step_(*positional), (x_next, history[0])

    def fused_checked(self) -> Callable[[], object]:
        """The public wrapper."""
        _, x_next, history = self._arguments(self.table, self.case.dtype)
        coef, step = self.table.coefficients().to(self.x.device), torch.tensor(STEP, device=self.x.device)
        outs = [self.out]
        return lambda: ops.solver_step_(self.x, outs, x_next, coef, step, history=history, n_store=1)

    def _arguments(
        self, table: SolverTable, history_dtype: torch.dtype
    ) -> tuple[tuple[Any, ...], Tensor, Tensor]:
        assert (table.n_hist, table.n_store) == (1, 1)
        device, x_next = self.x.device, torch.empty_like(self.x)
        history = self.old.to(history_dtype, copy=True)[None]
        coef, step = table.coefficients().to(device), torch.tensor(STEP, device=device)
        rng = torch.tensor([0, 1], device=device) if table.noise[STEP] else None
        tensors = (self.x, [self.out], x_next, None, history, None, coef, step)
        return (*tensors, None, None, None, None, None, rng, 1, 0, 0), x_next, history

    def _captured(self, name: str, call: Callable[[], object], moved: int, note: str = "") -> Competitor:
        """On CUDA as a graph of many calls, elsewhere as it is."""
        if self.case.device.type != "cuda":
            return Competitor(name, call, moved, note=note)
        call()  # what is loaded and compiled at the first call cannot be captured
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(GRAPH_CALLS):
                call()
        note = f"{note}; captured" if note else "captured in a CUDA graph"
        return Competitor(name, graph.replay, moved, GRAPH_CALLS, note)

    def _torch(self) -> Iterator[Competitor]:
        """The formula in PyTorch: eager and compiled, with fresh and with given outputs."""
        c_x, c_o, a, b, c = self.weights
        x, out, old, five = self.x, self.out, self.old, self.case.bytes(5)
        x_next, m = torch.empty_like(x), torch.empty_like(x)

        def fresh() -> tuple[Tensor, Tensor]:
            x0 = c_x * x + c_o * out
            return a * x + b * x0 + c * old, x0

        def given() -> None:
            torch.mul(x, c_x, out=m).add_(out, alpha=c_o)
            torch.mul(x, a, out=x_next).add_(m, alpha=b).add_(old, alpha=c)

        self._check("eager", fresh())
        given()
        self._check("eager, given outputs", (x_next, m))
        yield Competitor("eager", fresh, five, note="fresh outputs, as most code is written")
        yield Competitor("eager, given outputs", given, five, note="out= and in-place operations")

        # Python floats recompile when they change, a tensor's numbers do not; one tensor has few guards.
        numbers = torch.tensor(self.weights, dtype=torch.float32, device=x.device)

        def formula(x: Tensor, out: Tensor, old: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
            c_x, c_o, a, b, c = numbers.unbind()
            x0 = c_x * x.float() + c_o * out.float()
            return (a * x.float() + b * x0 + c * old.float()).to(x.dtype), x0.to(x.dtype)

        def into(x: Tensor, out: Tensor, old: Tensor, x_next: Tensor, m: Tensor, numbers: Tensor) -> None:
            result, x0 = formula(x, out, old, numbers)
            x_next.copy_(result)
            m.copy_(x0)

        torch.compiler.reset()  # the number of threads is compiled in
        compiled = torch.compile(formula, dynamic=False, fullgraph=True)
        compiled_into = torch.compile(into, dynamic=False, fullgraph=True)
        self._check("torch.compile", compiled(x, out, old, numbers))
        x_next.zero_()
        m.zero_()
        compiled_into(x, out, old, x_next, m, numbers)
        self._check("torch.compile, given outputs", (x_next, m))
        yield Competitor(
            "torch.compile", lambda: compiled(x, out, old, numbers), five, note="fresh outputs; warm"
        )
        yield Competitor(
            "torch.compile, given outputs",
            lambda: compiled_into(x, out, old, x_next, m, numbers),
            five,
            note="warm",
        )

    def _diffusers(self) -> Iterator[Competitor]:
        try:
            from diffusers import DPMSolverMultistepScheduler
        except ImportError:
            return
        for name, algorithm in (("diffusers", "dpmsolver++"), ("diffusers SDE", "sde-dpmsolver++")):
            scheduler: Any = DPMSolverMultistepScheduler(**BETAS, algorithm_type=algorithm)
            step = scheduler_step(scheduler, self.x, self.out, self.old)
            if algorithm == "dpmsolver++":
                self._check(name, (step(), scheduler.model_outputs[-1]))
            yield Competitor(
                name, step, self.case.bytes(5), note=f"DPMSolverMultistepScheduler.step, {algorithm}"
            )

    def _k_diffusion(self) -> Iterator[Competitor]:
        try:
            sampler = helpers_k_diffusion.load().sample_dpmpp_2m
        except ImportError:
            return
        sigmas, steps = torch.tensor(K_SIGMAS, device=self.x.device), len(K_SIGMAS) - 1
        outputs = cycle((self.out, self.old))  # in turns; an even number of steps, so every call begins alike

        def call() -> Tensor:
            state: Tensor = sampler(lambda x, sigma: next(outputs), self.x, sigmas, disable=True)
            return state

        self._check("k-diffusion", (call(),), k_diffusion_formula)
        moved = self.case.bytes(4 * steps - 1) // steps  # the x0 is given, and the first step needs no other
        note = f"sample_dpmpp_2m on given x0, {steps} steps of which 1 of order 1; no x0 to compute or store"
        yield Competitor("k-diffusion", call, moved, steps, note)

    def _bare_loop(self) -> Iterator[Competitor]:
        x_next, m = torch.empty_like(self.x), torch.empty_like(self.x)
        streams = (False, True) if self.case.bytes(1) >= STREAM_BYTES else (False,)
        for stream in streams:
            call = bare_loop.update(self.x, self.out, self.old, x_next, m, self.weights, stream=stream)
            call()
            self._check("bare loop", (x_next, m))
            name = "bare loop, streaming" if stream else "bare loop"
            yield Competitor(name, call, self.case.bytes(5), note="bare_loop.c, through ctypes")

    def _formula(self, x: Tensor, out: Tensor, old: Tensor) -> Results:
        c_x, c_o, a, b, c = self.weights
        x0 = c_x * x + c_o * out
        return a * x + b * x0 + c * old, x0

    def _check(
        self,
        name: str,
        results: Sequence[Tensor],
        formula: Callable[[Tensor, Tensor, Tensor], Sequence[Tensor]] | None = None,
    ) -> None:
        """A competitor that computes something else anywhere has no time to show."""
        tolerance = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}[self.case.dtype]
        tensors = (self.x, self.out, self.old, *results)
        for parts in zip(*(tensor.flatten().split(CHUNK) for tensor in tensors), strict=True):
            x, out, old, *actual = (part.double() for part in parts)
            for found, wanted in zip(actual, (formula or self._formula)(x, out, old), strict=True):
                torch.testing.assert_close(
                    found, wanted, rtol=tolerance, atol=tolerance, msg=lambda m: f"{name}: {m}"
                )


def k_diffusion_formula(x: Tensor, out: Tensor, old: Tensor) -> tuple[Tensor]:
    """DPM-Solver++(2M) on K_SIGMAS in the variance-exploding form; `out` and `old` are its x0 in turns."""
    x0s, last_h = cycle((out, old)), 0.0
    before = out
    for sigma, sigma_next in pairwise(K_SIGMAS):
        x0, h = next(x0s), math.log(sigma / sigma_next)
        slope = (x0 - before) / last_h if last_h else 0.0
        x = sigma_next / sigma * x - math.expm1(-h) * (x0 + 0.5 * h * slope)
        before, last_h = x0, h
    return (x,)


def make_solver(name: str) -> SolverTable:
    """A solver on Stable Diffusion's betas and diffusers' default spacing, bound to noise prediction."""
    schedule = Discrete.from_table("scaled_linear", beta_start=0.00085, beta_end=0.012, reading="diffusers")
    return make_table(name, schedule, timesteps(schedule, N_STEPS, "linspace", "dpm")).bind("eps")


def scheduler_step(scheduler: Any, x: Tensor, out: Tensor, old: Tensor) -> Callable[[], Tensor]:
    """A scheduler's `step` in the middle of a trajectory, any number of times."""
    scheduler.set_timesteps(N_STEPS, device=x.device)
    t = scheduler.timesteps[STEP]
    scheduler.model_outputs = [None, old]
    scheduler.lower_order_nums = 2

    def step() -> Tensor:
        scheduler._step_index = STEP
        scheduler.model_outputs[-1] = old
        state: Tensor = scheduler.step(out, t, x, return_dict=False)[0]
        return state

    return step
