"""Equal to k-diffusion, step for step, with noise levels in float64 and the same noise."""

from __future__ import annotations

import helpers_k_diffusion
import numpy as np
import pytest
import torch
from fastdiff_ops.ops.random import randn
from fastdiff_ops.schedules import VE, timesteps
from fastdiff_ops.solvers import SolverTable, make_table, sample
from problems import MixtureModel, start_points

SCHEDULE = VE()
SEED = 5
# k-diffusion never lowers the order but for a step to 0
FULL = {"lower_order_final": False}


@pytest.mark.parametrize("final", ["zero", None])
@pytest.mark.parametrize(
    ("function", "name", "options", "arguments"),
    [
        ("sample_euler", "euler", {}, {}),
        ("sample_heun", "heun", {}, {}),
        ("sample_dpmpp_2m", "dpmpp_2m", FULL, {}),
        ("sample_dpmpp_2m_sde", "dpmpp_2m_sde", {**FULL, "eta": 0.0}, {"eta": 0.0}),
        ("sample_dpmpp_2m_sde", "dpmpp_2m_sde", FULL, {}),
        ("sample_dpmpp_2m_sde", "dpmpp_2m_sde", {**FULL, "eta": 0.4}, {"eta": 0.4}),
        ("sample_dpmpp_2m_sde", "dpmpp_2m_sde", {**FULL, "variant": "heun"}, {"solver_type": "heun"}),
        ("sample_dpmpp_3m_sde", "dpmpp_3m_sde", {**FULL, "variant": "heun", "eta": 0.0}, {"eta": 0.0}),
        ("sample_dpmpp_3m_sde", "dpmpp_3m_sde", {**FULL, "variant": "heun"}, {}),
    ],
)
def test_equals_k_diffusion(
    function: str, name: str, options: dict, arguments: dict, final: str | None
) -> None:
    sampler = getattr(helpers_k_diffusion.sampling(), function)
    ts = timesteps(SCHEDULE, 11, "karras", final_sigma=final)
    x = start_points(SCHEDULE)
    model = MixtureModel(SCHEDULE, "x0")
    if function.endswith("sde"):
        draws = iter(range(1, 100))
        shape = tuple(x.shape)
        arguments = {
            **arguments,
            "noise_sampler": lambda *_: randn(shape, seed=SEED, offset=next(draws), dtype=torch.float64),
        }
    theirs = sampler(
        lambda x, sigma: model(x, sigma), x.clone(), torch.from_numpy(ts), disable=True, **arguments
    )
    ours = sample(model, x, make_table(name, SCHEDULE, ts, **options), prediction_type="x0", seed=SEED)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10 * float(theirs.abs().max()))


@pytest.mark.parametrize("final", ["zero", None])
@pytest.mark.parametrize(
    ("function", "name", "options", "arguments"),
    [
        ("sample_lms", "lms", {}, {}),
        ("sample_lms", "lms", {"order": 2}, {"order": 2}),
        ("sample_dpm_2", "dpm2", {}, {}),
        ("sample_euler_ancestral", "euler_ancestral", {}, {}),
        ("sample_euler_ancestral", "euler_ancestral", {"eta": 0.4}, {"eta": 0.4}),
        ("sample_dpm_2_ancestral", "dpm2_ancestral", {}, {}),
        ("sample_dpm_2_ancestral", "dpm2_ancestral", {"eta": 0.4}, {"eta": 0.4}),
        ("sample_dpmpp_2s_ancestral", "dpmpp_2s_ancestral", {}, {}),
        ("sample_dpmpp_2s_ancestral", "dpmpp_2s_ancestral", {"eta": 0.4}, {"eta": 0.4}),
        ("sample_dpmpp_sde", "dpmpp_2s_sde", {}, {}),
        ("sample_dpmpp_sde", "dpmpp_2s_sde", {"eta": 0.4}, {"eta": 0.4}),
    ],
)
def test_what_interfaces_offer(
    function: str, name: str, options: dict, arguments: dict, final: str | None
) -> None:
    sampler = getattr(helpers_k_diffusion.sampling(), function)
    ts = timesteps(SCHEDULE, 9, "karras", final_sigma=final)
    x = start_points(SCHEDULE)
    model = MixtureModel(SCHEDULE, "x0")
    table = make_table(name, SCHEDULE, ts, **options)
    if table.noise.any():
        arguments = {**arguments, "noise_sampler": BrownianPath(table, tuple(x.shape))}
    theirs = sampler(
        lambda x, sigma: model(x, sigma), x.clone(), torch.from_numpy(ts), disable=True, **arguments
    )
    calls, model.calls = model.calls, 0
    ours = sample(model, x, table, prediction_type="x0", seed=SEED)
    assert model.calls == calls
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10 * float(theirs.abs().max()))


class BrownianPath:
    """Our draws as increments of one path over sigma: where a step has an inner stage, two to a step."""

    def __init__(self, table: SolverTable, shape: tuple[int, ...]) -> None:
        self.draw = {}
        for e in np.flatnonzero(table.noise):
            at = table.t[e]
            if table.name == "dpmpp_2s_sde" or table.anchor[e - 1] != "keep" or e == 0:
                step = (at, table.t_next[e])
            else:  # the draw of the last stage stands for the whole step
                step = (table.t[e - 1], table.t_next[e])
            self.draw[step] = randn(shape, seed=SEED, offset=1 + int(e), dtype=torch.float64)

    def __call__(self, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        inside = [(pair, z) for pair, z in self.draw.items() if end - 1e-9 < pair[1] < pair[0] < start + 1e-9]
        parts = [(pair[0] - pair[1]) ** 0.5 * z for pair, z in inside]
        return sum(parts) / (start - end) ** 0.5


def test_table_of_a_run_with_sigma_levels_of_k_diffusion() -> None:
    module = helpers_k_diffusion.sampling()
    with helpers_k_diffusion.float64_default():
        sigmas = module.get_sigmas_karras(10, SCHEDULE.sigma_min, SCHEDULE.sigma_max, device="cpu")
    ts = timesteps(SCHEDULE, 10, "karras", final_sigma="zero")
    np.testing.assert_allclose(sigmas.numpy(), ts, rtol=1e-13)
