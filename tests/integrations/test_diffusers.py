"""Schedulers of diffusers pipelines: equal to diffusers' own, in real pipelines, without their defects."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

diffusers = pytest.importorskip("diffusers")

from fastdiff_ops.integrations.diffusers import FastDiffScheduler  # noqa: E402
from fastdiff_ops.ops import PhiloxState, randn  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array_.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed:FutureWarning"),
]

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = (2, 4, 8, 8)


def model(x: Tensor, t: Tensor) -> Tensor:
    """A smooth network whose output depends on the state and the time."""
    return 0.7 * torch.tanh(x) + 0.1 * torch.cos(t.to(torch.float32) / 100)


def run(scheduler: Any, n: int = 12, start: int = 0, **arguments: Any) -> Tensor:
    """A pipeline's loop."""
    scheduler.set_timesteps(n, **arguments)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    x = x * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps[start:]:
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(model(scaled, t), t, x).prev_sample
    return x


def assert_equal(ours: Tensor, theirs: Tensor, atol: float = 2e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol * float(theirs.abs().max()))


# ---- equality with the scheduler whose configuration it was


DPM = "DPMSolverMultistepScheduler"


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize(
    ("cls", "options", "solver"),
    [
        ("DDIMScheduler", {"clip_sample": False}, "ddim"),
        ("EulerDiscreteScheduler", {}, "euler"),
        ("HeunDiscreteScheduler", {}, "heun"),
        ("LMSDiscreteScheduler", {}, "lms"),
        ("KDPM2DiscreteScheduler", {}, "dpm2"),
        (DPM, {}, "dpmpp_2m"),
        (DPM, {"solver_order": 1}, "dpmpp_sde"),
        (DPM, {"solver_order": 3}, "dpmpp_3m"),
        (DPM, {"solver_type": "heun"}, "dpmpp_2m"),
        (DPM, {"final_sigmas_type": "sigma_min"}, "dpmpp_2m"),
        (DPM, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}, "dpm_solver_2m"),
        (DPM, {"use_karras_sigmas": True}, "dpmpp_2m"),
        (DPM, {"thresholding": True, "sample_max_value": 2.0}, "dpmpp_2m"),
        ("UniPCMultistepScheduler", {}, "unipc"),
        ("UniPCMultistepScheduler", {"solver_order": 3, "disable_corrector": [0]}, "unipc"),
        ("DEISMultistepScheduler", {}, "deis_logrhoab1"),
        ("DEISMultistepScheduler", {"solver_order": 3}, "deis_logrhoab2"),
    ],
)
def test_equals_the_scheduler_it_replaces(
    cls: str, options: dict[str, Any], solver: str, spacing: str, prediction_type: str
) -> None:
    if cls in ("KDPM2DiscreteScheduler", "DEISMultistepScheduler") and prediction_type == "sample":
        return  # KDPM2 does not know it; DEIS divides by the sigma of the last step
    if cls == "DDIMScheduler" and spacing == "linspace":
        return  # diffusers steps by 1000 // n there, wherever the next time is
    n = 10 if cls == "DDIMScheduler" else 12
    theirs = getattr(diffusers, cls)(
        **SD, **options, prediction_type=prediction_type, timestep_spacing=spacing
    )
    ours = FastDiffScheduler.from_config({**theirs.config, "_class_name": cls})
    assert ours.config["solver"] == solver
    # noise from a data prediction is divided by sigma, in float32 there
    assert_equal(run(ours, n), run(theirs, n), 1e-4 if prediction_type == "sample" else 2e-5)
    np.testing.assert_allclose(
        ours.timesteps.numpy().astype(float), theirs.timesteps.numpy().astype(float), atol=5e-3
    )


@pytest.mark.parametrize("cls", ["EulerDiscreteScheduler", DPM, "UniPCMultistepScheduler", "DDIMScheduler"])
def test_a_configuration_tells_whose_it_is(cls: str) -> None:
    theirs = getattr(diffusers, cls)(**SD)
    assert (
        FastDiffScheduler.from_config(theirs.config).config["solver"]
        == FastDiffScheduler.from_config({**theirs.config, "_class_name": cls}).config["solver"]
    )


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, {}),
        ({"shift": 3.0}, {}),
        ({"use_dynamic_shifting": True}, {"mu": 0.8}),
        ({"use_dynamic_shifting": True, "time_shift_type": "linear"}, {"mu": 0.8}),
        ({"use_dynamic_shifting": True, "shift_terminal": 0.02}, {"mu": 1.1}),
        ({"shift": 2.0, "use_karras_sigmas": True}, {}),
        ({"shift": 3.0}, {"sigmas": [1.0, 0.7, 0.4, 0.2]}),
    ],
)
def test_equals_flow_matching(options: dict[str, Any], arguments: dict[str, Any]) -> None:
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(**options)
    ours = FastDiffScheduler.from_config(theirs.config)
    n = len(arguments["sigmas"]) if "sigmas" in arguments else 9
    assert_equal(run(ours, n, **arguments), run(theirs, n, **arguments))
    torch.testing.assert_close(ours.sigmas, theirs.sigmas)


@pytest.mark.parametrize("cls", [DPM, "UniPCMultistepScheduler"])
def test_equals_flow_matching_of_higher_order(cls: str) -> None:
    theirs = getattr(diffusers, cls)(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, solver_order=2
    )
    ours = FastDiffScheduler.from_config({**theirs.config, "_class_name": cls})
    theirs.set_timesteps(9)
    levels = theirs.sigmas[:-1].tolist()
    unshifted = [s / (3.0 - 2.0 * s) for s in levels]
    assert_equal(run(ours, 9, sigmas=unshifted), run(theirs, 9), 1e-3)


# ---- real pipelines, of small components


def unet(condition: int | None = None, channels: int = 4) -> Any:
    torch.manual_seed(0)
    common = {"sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    if condition is None:
        return diffusers.UNet2DModel(
            in_channels=3, out_channels=3, down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"), **common,
        )  # fmt: skip
    return diffusers.UNet2DConditionModel(
        in_channels=channels, out_channels=4, cross_attention_dim=condition, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **common,
    )  # fmt: skip


def vae() -> Any:
    torch.manual_seed(1)
    return diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"), shift_factor=0.1,
    )  # fmt: skip


def stable_diffusion(kind: str) -> Any:
    cls = getattr(diffusers, kind)
    pipe = cls(
        vae=vae(), text_encoder=None, tokenizer=None, unet=unet(8, 9 if "Inpaint" in kind else 4),
        scheduler=diffusers.DPMSolverMultistepScheduler(**SD, steps_offset=1), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def prompt() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    positive, negative = (torch.randn(1, 5, 8, generator=generator) for _ in range(2))
    return {"prompt_embeds": positive, "negative_prompt_embeds": negative}


def images(pipe: Any, **arguments: Any) -> np.ndarray:
    generator = torch.Generator().manual_seed(3)
    result: np.ndarray = pipe(generator=generator, output_type="np", **arguments).images
    return result


def compare(pipe: Any, **arguments: Any) -> None:
    """Images of the pipeline's own scheduler, and of ours in its place."""
    theirs = images(pipe, **arguments)
    pipe.scheduler = FastDiffScheduler.from_config(
        {**pipe.scheduler.config, "_class_name": type(pipe.scheduler).__name__}
    )
    ours = images(pipe, **arguments)
    assert theirs.std() > 0.01
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


def picture() -> Tensor:
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    "cls", [DPM, "UniPCMultistepScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"]
)
def test_stable_diffusion_with_guidance(cls: str) -> None:
    pipe = stable_diffusion("StableDiffusionPipeline")
    pipe.scheduler = getattr(diffusers, cls)(**SD, steps_offset=1)
    compare(pipe, num_inference_steps=6, guidance_scale=4.0, height=16, width=16, **prompt())


@pytest.mark.parametrize("cls", [DPM, "UniPCMultistepScheduler", "EulerDiscreteScheduler"])
def test_image_to_image(cls: str) -> None:
    pipe = stable_diffusion("StableDiffusionImg2ImgPipeline")
    pipe.scheduler = getattr(diffusers, cls)(**SD, steps_offset=1)
    compare(pipe, image=picture(), strength=0.6, num_inference_steps=10, guidance_scale=4.0, **prompt())


def test_inpainting() -> None:
    pipe = stable_diffusion("StableDiffusionInpaintPipeline")
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    compare(
        pipe, image=picture(), mask_image=mask, strength=0.8, num_inference_steps=8, guidance_scale=4.0,
        height=16, width=16, **prompt(),
    )  # fmt: skip


def test_unconditional_pixels() -> None:
    pipe = diffusers.DDPMPipeline(unet=unet(), scheduler=diffusers.DPMSolverMultistepScheduler())
    pipe.set_progress_bar_config(disable=True)
    compare(pipe, batch_size=2, num_inference_steps=6)


def test_diffusion_transformer() -> None:
    torch.manual_seed(0)
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=8, num_layers=1,
        sample_size=8, patch_size=2, num_embeds_ada_norm=1000,
    )  # fmt: skip
    pipe = diffusers.DiTPipeline(transformer.eval(), vae(), diffusers.DPMSolverMultistepScheduler())
    pipe.set_progress_bar_config(disable=True)
    compare(pipe, class_labels=[1, 2], num_inference_steps=5, guidance_scale=2.0)


def test_flow_matching_transformer() -> None:
    torch.manual_seed(0)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    pipe = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=vae(),
        text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None, transformer=transformer,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    embeds = {
        "prompt_embeds": torch.randn(1, 5, 8, generator=generator),
        "pooled_prompt_embeds": torch.randn(1, 8, generator=generator),
    }
    compare(pipe, num_inference_steps=4, height=16, width=16, **embeds)


@pytest.mark.parametrize("solver", ["unipc", "dpmpp_2s", "deis_tab2", "ghvb", "dpmpp_2m_sde"])
def test_one_line_switches(solver: str) -> None:
    pipe = stable_diffusion("StableDiffusionPipeline")
    pipe.scheduler = FastDiffScheduler.from_config(pipe.scheduler.config, solver=solver)
    made = images(pipe, num_inference_steps=6, guidance_scale=2.0, height=16, width=16, **prompt())
    assert np.isfinite(made).all() and made.std() > 0.01


# ---- requests


def test_requests_that_share_a_scheduler() -> None:
    """Interleaved, each with its own time steps; and in threads."""
    alone = FastDiffScheduler(**SD, solver="unipc", order=3)
    expected = [run(alone, n) for n in (9, 12)]
    scheduler = FastDiffScheduler(**SD, solver="unipc", order=3)
    states, plans = [], []
    for n in (9, 12):
        scheduler.set_timesteps(n)
        plans.append(scheduler.timesteps)
        states.append(torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)))
    for i in range(12):
        for k, times in enumerate(plans):
            if i < len(times):
                states[k] = scheduler.step(model(states[k], times[i]), times[i], states[k])[0]
    for state, wanted in zip(states, expected, strict=True):
        assert torch.equal(state, wanted)

    found: dict[int, Tensor] = {}

    def work(k: int, times: Tensor) -> None:
        x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
        for t in times:
            x = scheduler.step(model(x, t), t, x).prev_sample
        found[k] = x

    threads = [threading.Thread(target=work, args=item) for item in enumerate(plans)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, wanted in enumerate(expected):
        assert torch.equal(found[k], wanted)


def test_time_steps_by_value() -> None:
    scheduler = FastDiffScheduler(**SD, solver="unipc")
    expected = run(scheduler, 7)
    for kind in (float, int, torch.tensor, np.float32):
        scheduler.set_timesteps(7)
        x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t), kind(t.item()), x).prev_sample
        assert torch.equal(x, expected)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc", "ddim"])
def test_a_time_step_for_each_sample(solver: str) -> None:
    scheduler = FastDiffScheduler(**SD, solver=solver)
    expected = run(scheduler, 7)
    scheduler.set_timesteps(7)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, t), t.repeat(2), x).prev_sample
    torch.testing.assert_close(x, expected, rtol=1e-6, atol=1e-6)


def test_samples_at_different_times() -> None:
    """Without a history each sample makes the step of its own time."""
    scheduler = FastDiffScheduler(**SD, solver="ddim")
    scheduler.set_timesteps(7)
    x, output = torch.randn(SHAPE), torch.randn(SHAPE)
    times = scheduler.timesteps[[5, 2]]
    together = scheduler.step(output, times, x).prev_sample
    for k in range(2):
        scheduler.set_timesteps(7)
        one = scheduler.step(output[k : k + 1], times[k].item(), x[k : k + 1]).prev_sample
        torch.testing.assert_close(together[k : k + 1], one, rtol=1e-6, atol=1e-6)


def test_a_run_may_begin_in_the_middle() -> None:
    """As the run of a table of what is left: no history that was never written."""
    scheduler = FastDiffScheduler(**SD, solver="dpmpp_3m")
    scheduler.set_timesteps(10)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps[4:]:
        x = scheduler.step(model(x, t), t, x).prev_sample
    other = FastDiffScheduler(**SD, solver="dpmpp_3m")
    other.set_timesteps(timesteps=scheduler.timesteps[4:].tolist())
    y = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    for t in other.timesteps:
        y = other.step(model(y, t), t, y).prev_sample
    assert torch.equal(x, y)


# ---- noise


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_noise_depends_on_the_seed_alone(dtype: torch.dtype) -> None:
    scheduler = FastDiffScheduler(**SD, solver="dpmpp_sde")
    scheduler.set_timesteps(5)
    zero = torch.zeros(SHAPE, dtype=dtype)
    t = scheduler.timesteps[1]
    noise = scheduler.step(zero, t, zero, generator=torch.Generator().manual_seed(11)).prev_sample
    weight = scheduler._plan.begin(scheduler, 1, torch.device("cpu")).table.step(0).state.noise
    expected = weight * randn(SHAPE, seed=PhiloxState(11).fork(0).seed, offset=2, dtype=torch.float64)
    torch.testing.assert_close(
        noise.double(), expected, rtol=0, atol=1e-3 if dtype == torch.float16 else 1e-6
    )


def test_runs_of_one_generator_differ_and_repeat() -> None:
    def draws(count: int) -> list[Tensor]:
        scheduler = FastDiffScheduler(**SD, solver="dpmpp_sde")
        generator, results = torch.Generator().manual_seed(7), []
        for _ in range(count):
            scheduler.set_timesteps(4)
            x = torch.zeros(SHAPE)
            for t in scheduler.timesteps:
                x = scheduler.step(model(x, t), t, x, generator=generator).prev_sample
            results.append(x)
        return results

    first, second = draws(2)
    assert not torch.equal(first, second)
    assert torch.equal(draws(1)[0], first)


def test_a_generator_for_each_sample() -> None:
    scheduler = FastDiffScheduler(**SD, solver="dpmpp_sde")
    results = []
    for seeds in ((1, 2), (2, 1)):
        scheduler._uses.clear()
        scheduler.set_timesteps(4)
        x = torch.zeros(SHAPE)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t), t, x, generator=generators).prev_sample
        results.append(x)
    assert torch.equal(results[0], results[1].flip(0))
    assert not torch.equal(results[0][0], results[0][1])


def test_given_noise() -> None:
    scheduler = FastDiffScheduler(**SD, solver="dpmpp_sde")
    scheduler.set_timesteps(4)
    x, noise = torch.zeros(SHAPE), torch.randn(SHAPE)
    found = scheduler.step(x, scheduler.timesteps[0], x, variance_noise=noise).prev_sample
    torch.testing.assert_close(found, scheduler._plan.table.step(0).state.noise * noise)


def test_noising() -> None:
    ours, theirs = FastDiffScheduler(**SD), diffusers.DDIMScheduler(**SD)
    x, noise, t = torch.randn(SHAPE), torch.randn(SHAPE), torch.tensor([10, 900])
    torch.testing.assert_close(ours.add_noise(x, noise, t), theirs.add_noise(x, noise, t))
    torch.testing.assert_close(ours.get_velocity(x, noise, t), theirs.get_velocity(x, noise, t))
    flow = FastDiffScheduler(prediction_type="flow_prediction")
    expected = 0.75 * x + 0.25 * noise
    torch.testing.assert_close(flow.scale_noise(x, torch.tensor([250.0]), noise), expected)


# ---- what a step costs, and compilers


class Count(TorchDispatchMode):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "unipc", "deis_tab3", "lms", "heun", "dpmpp_2m_sde"])
def test_a_step_is_one_operator_call(solver: str) -> None:
    scheduler = FastDiffScheduler(**SD, solver=solver)
    scheduler.set_timesteps(8)
    x, output = torch.randn(SHAPE), torch.randn(SHAPE)
    for t in scheduler.timesteps[:4]:
        x = scheduler.step(output, t, x).prev_sample
    count = Count()
    with count:
        scheduler.step(output, scheduler.timesteps[4], x)
    assert sum("solver_step_" in name for name in count.seen) == 1
    # the output buffer, and the view of the time step above
    others = [name for name in count.seen if "solver_step_" not in name]
    assert all("empty" in name or "select" in name or "detach" in name for name in others), others


@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc"])
def test_one_graph_of_the_loop(solver: str) -> None:
    scheduler = FastDiffScheduler(**SD, solver=solver)
    expected = run(scheduler, 5)
    scheduler.set_timesteps(5)

    @torch.compile(fullgraph=True, backend="eager")
    def loop(x: Tensor, times: Tensor) -> Tensor:
        for i in range(5):
            x = scheduler.step(model(x, times[i]), times[i], x, return_dict=False)[0]
        return x

    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loop(x, scheduler.timesteps), expected, rtol=1e-5, atol=1e-6)


def test_gradients_flow_through_steps() -> None:
    scheduler = FastDiffScheduler(**SD, solver="dpmpp_2m")
    scheduler.set_timesteps(4)
    start = torch.randn(SHAPE, dtype=torch.float64, requires_grad=True)
    x = start
    for t in scheduler.timesteps:
        x = scheduler.step(0.1 * x, t, x).prev_sample
    (gradient,) = torch.autograd.grad(x.sum(), start)
    # the run is linear and acts on each element alone
    torch.testing.assert_close(gradient * start, x.detach(), rtol=1e-9, atol=1e-12)


# ---- configuration, and what is refused


def test_configuration_round_trip(tmp_path: Path) -> None:
    scheduler = FastDiffScheduler(**SD, solver="ghvb", order=1.8, use_karras_sigmas=True)
    scheduler.save_pretrained(tmp_path)
    again = FastDiffScheduler.from_pretrained(tmp_path)
    assert torch.equal(run(again, 6), run(scheduler, 6))
    back = diffusers.EulerDiscreteScheduler.from_config(scheduler.config)
    assert back.config.beta_schedule == "scaled_linear"
    assert diffusers.DPMSolverMultistepScheduler in scheduler.compatibles
    assert len(scheduler) == 1000


def test_learned_variance_is_cut() -> None:
    scheduler = FastDiffScheduler(**SD)
    scheduler.set_timesteps(4)
    x, output = torch.randn(SHAPE), torch.randn(SHAPE)
    expected = scheduler.step(output, scheduler.timesteps[0], x).prev_sample
    scheduler.set_timesteps(4)
    both = torch.cat([output, torch.randn(SHAPE)], 1)
    assert torch.equal(scheduler.step(both, scheduler.timesteps[0], x).prev_sample, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction_type": "noise"}, "`prediction_type`"),
        ({"beta_schedule": "cubic"}, "`name`"),
    ],
)
def test_bad_configurations(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FastDiffScheduler(**options)


def test_bad_calls() -> None:
    x = torch.zeros(SHAPE)
    with pytest.raises(ValueError, match="set_timesteps"):
        FastDiffScheduler().step(x, 10, x)
    with pytest.raises(ValueError, match="unknown solver 'best'"):
        FastDiffScheduler(solver="best").set_timesteps(5)
    with pytest.raises(TypeError, match="has no option order"):
        FastDiffScheduler(order=2).set_timesteps(5)
    scheduler = FastDiffScheduler()
    with pytest.raises(ValueError, match="num_inference_steps"):
        scheduler.set_timesteps()
    with pytest.raises(ValueError, match="`mu`"):
        scheduler.set_timesteps(5, mu=1.0)
    scheduler.set_timesteps(5)
    with pytest.raises(ValueError, match="`timestep`"):
        scheduler.step(x, 12345, x)
    with pytest.raises(ValueError, match="`model_output`"):
        scheduler.step(x[:1], scheduler.timesteps[0], x)
    with pytest.raises(ValueError, match="`timestep`"):
        scheduler.step(x, torch.zeros(3), x)
    dynamic = FastDiffScheduler(prediction_type="flow_prediction", use_dynamic_shifting=True)
    with pytest.raises(ValueError, match="`mu`"):
        dynamic.set_timesteps(5)
