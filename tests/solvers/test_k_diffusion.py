"""Equal to k-diffusion, step for step, with noise levels in float64 and the same noise."""

from __future__ import annotations

import helpers_k_diffusion
import numpy as np
import pytest
import torch
from fastdiff_ops.ops.random import randn
from fastdiff_ops.schedules import VE, timesteps
from fastdiff_ops.solvers import make_table, sample
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


def test_table_of_a_run_with_sigma_levels_of_k_diffusion() -> None:
    module = helpers_k_diffusion.sampling()
    with helpers_k_diffusion.float64_default():
        sigmas = module.get_sigmas_karras(10, SCHEDULE.sigma_min, SCHEDULE.sigma_max, device="cpu")
    ts = timesteps(SCHEDULE, 10, "karras", final_sigma="zero")
    np.testing.assert_allclose(sigmas.numpy(), ts, rtol=1e-13)
