"""The two-dimensional Gaussian mixture on which solvers are judged: exact model, fixed start points, known
solution."""

from __future__ import annotations

import math

import numpy as np
import torch
from fastdiff_ops.schedules import VE, FlowMatching, NoiseSchedule, VPLinear
from torch import Tensor

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MEANS = torch.tensor([[1.5, 0.0], [-1.0, 1.2], [-0.8, -1.4]], dtype=torch.float64)
STDS = torch.tensor([0.3, 0.2, 0.4], dtype=torch.float64)


def mixture_expectations(x: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
    """E[x0 | x] and E[eps | x] for x [B, 2]; alpha and sigma are numbers or [B]."""
    alpha, sigma = (torch.as_tensor(value, dtype=torch.float64).reshape(-1, 1) for value in (alpha, sigma))
    variance = alpha**2 * STDS**2 + sigma**2  # [B or 1, K]
    offset = x.double()[:, None, :] - alpha[:, :, None] * MEANS
    log_density = WEIGHTS.log() - variance.log() - 0.5 * offset.square().sum(-1) / variance
    posterior = torch.softmax(log_density, dim=-1)[:, :, None]
    x0 = MEANS + (alpha * STDS**2 / variance)[:, :, None] * offset
    eps = (sigma / variance)[:, :, None] * offset
    return (posterior * x0).sum(1), (posterior * eps).sum(1)


class MixtureModel:
    """The exact network on a schedule whose model time is its own; counts its calls."""

    def __init__(self, schedule: NoiseSchedule, prediction_type: str) -> None:
        self.schedule, self.prediction_type, self.calls = schedule, prediction_type, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        t = t.double()
        x0, eps = mixture_expectations(x, self.schedule.alpha(t), self.schedule.sigma(t))
        _, rows = self.schedule.path_coefficients(t, self.prediction_type)
        return (rows[:, :1] * x0 + rows[:, 1:] * eps).to(x.dtype)


def start_points(schedule: NoiseSchedule) -> Tensor:
    """16 fixed draws of sigma(T) z, float64 [16, 2]."""
    j = np.arange(16)
    radius = np.sqrt(-2.0 * np.log((j + 0.5) / 16.0))
    angle = 2.0 * math.pi * (0.6180339887498949 * j % 1.0)
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return torch.from_numpy(points) * float(schedule.sigma(schedule.T))


def exact_solution(schedule: NoiseSchedule) -> Tensor:
    """Where the probability-flow ODE takes the start points, by an adaptive eighth-order solver."""
    from scipy.integrate import solve_ivp

    flow = isinstance(schedule, FlowMatching)
    start = start_points(schedule)

    def slope(s: float, flat: np.ndarray) -> np.ndarray:
        t = s if flow else float(schedule.inv_lam(s))
        x = torch.from_numpy(flat.reshape(-1, 2))
        model = MixtureModel(schedule, "velocity" if flow else "eps")
        out = model(x, torch.tensor([t], dtype=torch.float64))
        if not flow:  # dx/dlambda = (dln alpha/dlambda) x - sigma eps
            out = float(schedule.dlogalpha_dlam(t)) * x - float(schedule.sigma(t)) * out
        return out.numpy().ravel()

    span = [1.0, 0.0] if flow else [float(schedule.lam(schedule.T)), float(schedule.lam(schedule.t0))]
    with np.errstate(over="ignore", invalid="ignore"):  # of the error norm of a step that is then rejected
        solution = solve_ivp(slope, span, start.numpy().ravel(), method="DOP853", rtol=1e-13, atol=1e-13)
    return torch.from_numpy(solution.y[:, -1].reshape(-1, 2))


def rms(x: Tensor, reference: Tensor) -> float:
    """Root mean square difference over all elements."""
    return float((x.double() - reference).square().mean().sqrt())


PROBLEMS: dict[str, tuple[NoiseSchedule, str]] = {
    "A": (VPLinear(), "time_uniform"),
    "B": (VPLinear(), "logSNR"),
    "C": (VE(), "karras"),
}
