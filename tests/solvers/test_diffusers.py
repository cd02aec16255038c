"""Equal to diffusers' schedulers on the same model outputs; their tables are float32, so to 1e-5."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from fastdiff_ops.ops.random import randn
from fastdiff_ops.schedules import Discrete, FlowMatching, timesteps
from fastdiff_ops.solvers import make_table, sample

diffusers = pytest.importorskip("diffusers")

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array_.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed:FutureWarning"),
]

SHAPE, SEED, N = (2, 4, 8, 8), 3, 12
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def outputs(count: int = 2 * N) -> list[torch.Tensor]:
    """Model outputs that depend on nothing, so that errors do not feed back."""
    return [randn(SHAPE, seed=99, offset=e, dtype=torch.float64) for e in range(count)]


def schedule_of(scheduler: Any) -> Discrete:
    return Discrete(scheduler.alphas_cumprod.double().numpy(), reading="diffusers")


def ours(schedule: Any, ts: np.ndarray, name: str, prediction_type: str, **options: Any) -> torch.Tensor:
    values = iter(outputs())
    x = randn(SHAPE, seed=SEED, dtype=torch.float64)
    table = make_table(name, schedule, ts, **options)
    return sample(lambda x, t: next(values), x, table, prediction_type=prediction_type, seed=SEED)


def theirs(scheduler: Any, scale: float = 1.0, noise: str | None = None, **arguments: Any) -> torch.Tensor:
    """Run diffusers' loop in float32 from the same start; `scale` takes its state from ours."""
    x = scale * randn(SHAPE, seed=SEED)
    for e, (t, out) in enumerate(zip(scheduler.timesteps, outputs(), strict=False)):
        if noise is not None:
            arguments[noise] = randn(SHAPE, seed=SEED, offset=1 + e)
        x = scheduler.step(out.float(), t, x, **arguments).prev_sample
    return x.double()


def assert_equal(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_ddim(spacing: str, eta: float, prediction_type: str) -> None:
    n = 10  # 1000 / n must be whole: DDIM steps by it
    scheduler = diffusers.DDIMScheduler(
        **BETAS, timestep_spacing=spacing, clip_sample=False, prediction_type=prediction_type
    )
    scheduler.set_timesteps(n)
    schedule = schedule_of(scheduler)
    ts = np.append(scheduler.timesteps.numpy().astype(float), schedule.t_data)
    if spacing == "linspace":
        # diffusers steps back by 1000 // n from each time, whatever the next one is; the first step shows
        # the formula
        ts = np.array([999.0, 899.0])
        scheduler.timesteps = scheduler.timesteps[:1]
    names = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
    actual = ours(schedule, ts, "ddim", names[prediction_type], eta=eta)
    expected = theirs(scheduler, noise="variance_noise" if eta else None, eta=eta)
    assert_equal(actual, expected)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize(
    ("name", "cls"), [("euler", "EulerDiscreteScheduler"), ("heun", "HeunDiscreteScheduler")]
)
def test_euler_and_heun(name: str, cls: str, spacing: str) -> None:
    scheduler = getattr(diffusers, cls)(**BETAS, timestep_spacing=spacing)
    scheduler.set_timesteps(N)
    schedule = schedule_of(scheduler)
    ts = timesteps(schedule, N, spacing, family="euler")
    # diffusers steps x / alpha
    expected = theirs(scheduler, scale=1.0 / float(schedule.alpha(ts[0])))
    assert_equal(ours(schedule, ts, name, "eps"), expected)


@pytest.mark.parametrize("n", [N, 20])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize(
    ("algorithm", "order", "solver_type", "name", "options"),
    [
        ("dpmsolver++", 1, "midpoint", "ddim", {}),
        ("dpmsolver++", 2, "midpoint", "dpmpp_2m", {}),
        ("dpmsolver++", 2, "heun", "dpmpp_2m", {"variant": "heun"}),
        ("dpmsolver++", 3, "midpoint", "dpmpp_3m", {"variant": "reference"}),
        ("dpmsolver++", 3, "heun", "dpmpp_3m", {"variant": "heun"}),
        ("dpmsolver", 2, "midpoint", "dpm_solver_2m", {}),
        ("dpmsolver", 3, "midpoint", "dpm_solver_3m", {"variant": "reference"}),
        ("sde-dpmsolver++", 1, "midpoint", "dpmpp_sde", {}),
        ("sde-dpmsolver++", 2, "midpoint", "dpmpp_2m_sde", {}),
        ("sde-dpmsolver++", 2, "heun", "dpmpp_2m_sde", {"variant": "heun"}),
    ],
)
def test_multistep(
    algorithm: str, order: int, solver_type: str, name: str, options: dict, spacing: str, final: str, n: int
) -> None:
    if algorithm == "dpmsolver" and final == "zero":
        return  # diffusers refuses a last step to 0 for noise prediction
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **BETAS,
        algorithm_type=algorithm,
        solver_order=order,
        solver_type=solver_type,
        timestep_spacing=spacing,
        final_sigmas_type=final,
    )
    scheduler.set_timesteps(n)
    schedule = schedule_of(scheduler)
    ts = timesteps(schedule, n, spacing, family="dpm", final_sigma=final)
    np.testing.assert_array_equal(ts[:-1], scheduler.timesteps.numpy())
    if name != "ddim" and order > 1:
        options = {**options, "lower_order_final": "auto"}
    expected = theirs(scheduler, noise="variance_noise" if algorithm.startswith("sde") else None)
    assert_equal(ours(schedule, ts, name, "eps", **options), expected)


@pytest.mark.parametrize("n", [N, 20])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("prediction", ["x0", "eps"])
@pytest.mark.parametrize(("order", "variant"), [(1, "bh2"), (2, "bh1"), (2, "bh2"), (3, "bh1"), (3, "bh2")])
def test_unipc(order: int, variant: str, prediction: str, spacing: str, final: str, n: int) -> None:
    if final == "zero" and (variant == "bh1" or prediction == "eps"):
        return  # diffusers divides by the infinite step there
    scheduler = diffusers.UniPCMultistepScheduler(
        **BETAS,
        solver_order=order,
        solver_type=variant,
        predict_x0=prediction == "x0",
        timestep_spacing=spacing,
        final_sigmas_type=final,
        disable_corrector=[4],
    )
    scheduler.set_timesteps(n)
    schedule = schedule_of(scheduler)
    ts = timesteps(schedule, n, spacing, family="dpm", final_sigma=final)
    np.testing.assert_array_equal(ts[:-1], scheduler.timesteps.numpy())
    options = {"order": order, "variant": variant, "prediction": prediction, "disable_corrector": [4]}
    assert_equal(ours(schedule, ts, "unipc", "eps", **options), theirs(scheduler))


@pytest.mark.parametrize("n", [N, 20])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis(order: int, spacing: str, n: int) -> None:
    scheduler = diffusers.DEISMultistepScheduler(**BETAS, solver_order=order, timestep_spacing=spacing)
    scheduler.set_timesteps(n)
    schedule = schedule_of(scheduler)
    ts = timesteps(schedule, n, spacing, family="dpm", final_sigma="sigma_min")
    name = "ddim" if order == 1 else f"deis_logrhoab{order - 1}"
    options = {} if order == 1 else {"lower_order_final": n < 15}
    actual, expected = ours(schedule, ts, name, "eps", **options), theirs(scheduler)
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


def test_third_order_sde_differs_by_a_sign_of_theirs() -> None:
    """diffusers weighs the second difference by P3 - 1, not by P3 = H phi_3(-H), which vanishes with h."""
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **BETAS, algorithm_type="sde-dpmsolver++", solver_order=3
    )
    scheduler.set_timesteps(20)
    schedule = schedule_of(scheduler)
    ts = timesteps(schedule, 20, "linspace", family="dpm")
    table = make_table("dpmpp_3m_sde", schedule, ts, variant="reference", lower_order_final="auto")
    rows, lam = np.array(table.rows), schedule.lam(ts)
    for e in range(2, 19):
        h, h0, h1 = np.diff(lam[e - 2 : e + 2])[::-1]
        r0, r1 = h0 / h, h1 / h
        second_difference = np.array([1 / r0, -1 / r0 - 1 / r1, 1 / r1]) / (r0 + r1)
        rows[e, 0, [2, 5, 6]] -= schedule.alpha(ts[e + 1]) * second_difference
    values = iter(outputs())
    x = randn(SHAPE, seed=SEED, dtype=torch.float64)
    changed = dataclasses.replace(table, rows=rows)
    actual = sample(lambda x, t: next(values), x, changed, prediction_type="eps", seed=SEED)
    assert_equal(actual, theirs(scheduler, noise="variance_noise"))


@pytest.mark.parametrize("n", [9, 10, 11])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize(
    ("algorithm", "order", "solver_type", "name", "variant"),
    [
        ("dpmsolver++", 2, "midpoint", "dpmpp_2s", "dpmsolver"),
        ("dpmsolver++", 2, "heun", "dpmpp_2s", "taylor"),
        # their third-order "midpoint" puts the second-order midpoint rule into the middle stage, as no paper
        # does
        ("dpmsolver++", 3, "heun", "dpmpp_3s", "taylor"),
        ("dpmsolver", 2, "midpoint", "dpm_solver_2s", "dpmsolver"),
        ("dpmsolver", 2, "heun", "dpm_solver_2s", "taylor"),
        ("dpmsolver", 3, "heun", "dpm_solver_3s", "taylor"),
    ],
)
def test_singlestep(
    algorithm: str, order: int, solver_type: str, name: str, variant: str, final: str, n: int
) -> None:
    if algorithm == "dpmsolver" and final == "zero":
        return  # diffusers refuses a last step to 0 for noise prediction
    scheduler = diffusers.DPMSolverSinglestepScheduler(
        **BETAS,
        algorithm_type=algorithm,
        solver_order=order,
        solver_type=solver_type,
        final_sigmas_type=final,
        lower_order_final=True,
    )
    scheduler.set_timesteps(n)
    schedule = schedule_of(scheduler)
    ts = np.append(scheduler.timesteps.numpy().astype(float), schedule.t_data if final == "zero" else 0.0)
    starts = [e for e, k in enumerate(scheduler.order_list) if k == 1]
    orders = np.diff([*starts, n]).tolist()
    expected = theirs(scheduler)
    assert_equal(ours(schedule, ts, name, "eps", variant=variant, orders=orders), expected)
    if final == "zero" or n != 10 or order != 2:  # else they end with two steps of order 1
        assert_equal(ours(schedule, ts, name, "eps", variant=variant), expected)


def test_flow_matching_euler() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(N)
    ts = scheduler.sigmas.double().numpy()
    assert_equal(ours(FlowMatching(), ts, "euler", "velocity"), theirs(scheduler))


def test_unet_by_the_documented_lines() -> None:
    """A diffusers network of the user's own: wrap it, name its schedule, sample."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    ).eval()
    schedule = Discrete.from_table("linear", reading="diffusers")
    options = {"schedule": schedule, "num_steps": 8, "prediction_type": "eps", "seed": 0}

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return unet(x, t).sample

    images = sample(model, (2, 3, 8, 8), "dpmpp_2m", clip="static", **options)
    assert images.shape == (2, 3, 8, 8)
    assert torch.isfinite(images).all()
    assert float(images.abs().max()) <= 1.0

    # Nothing clipped and the network in float64, beside diffusers' own loop, whose state is float32.
    unet.double()
    x = randn((2, 3, 8, 8), seed=0, dtype=torch.float64)
    plain = sample(model, x, "dpmpp_2m", **options)
    scheduler = diffusers.DPMSolverMultistepScheduler(
        trained_betas=np.linspace(1e-4, 0.02, 1000), timestep_spacing="trailing"
    )
    scheduler.set_timesteps(8)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t), t, x).prev_sample
    assert_equal(plain, x)
