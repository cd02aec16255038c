"""Samplers with k-diffusion's signature: equal results, callbacks, seeds, bad input."""

from __future__ import annotations

from typing import Any

import helpers_k_diffusion
import pytest
import torch
from fastdiff_ops.integrations import k_diffusion
from fastdiff_ops.schedules import VE, timesteps
from fastdiff_ops.solvers import solver_names
from problems import MixtureModel, start_points

SCHEDULE = VE()
SIGMAS = torch.from_numpy(timesteps(SCHEDULE, 9, "karras", final_sigma="zero"))


def denoiser(x: torch.Tensor, sigma: torch.Tensor, shift: float = 0.0) -> torch.Tensor:
    return MixtureModel(SCHEDULE, "x0")(x, sigma) + shift


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2", "lms", "dpmpp_2m"])
def test_equals_k_diffusion(name: str) -> None:
    theirs = getattr(helpers_k_diffusion.sampling(), f"sample_{name}")
    ours = getattr(k_diffusion, f"sample_{name}")
    arguments: dict[str, Any] = {"extra_args": {"shift": 0.1}, "disable": True}
    x = start_points(SCHEDULE)
    expected = theirs(denoiser, x.clone(), SIGMAS, **arguments)
    torch.testing.assert_close(ours(denoiser, x, SIGMAS, **arguments), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "name",
    ["euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"],
)
def test_noise_is_that_of_the_seed(name: str) -> None:
    run = getattr(k_diffusion, f"sample_{name}")
    x = start_points(SCHEDULE)
    first, again, other = (run(denoiser, x, SIGMAS, disable=True, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    calm = run(denoiser, x, SIGMAS, disable=True, eta=0.0)
    assert torch.equal(calm, run(denoiser, x, SIGMAS, disable=True, eta=0.0))


def test_every_name_of_k_diffusion_is_here() -> None:
    module = helpers_k_diffusion.sampling()
    theirs = {name for name in dir(module) if name.startswith("sample_")}
    assert theirs - set(k_diffusion.__all__) == {"sample_dpm_fast", "sample_dpm_adaptive"}


def test_callback_sees_what_k_diffusion_shows() -> None:
    theirs: list[dict[str, Any]] = []
    ours: list[dict[str, Any]] = []

    def keep(into: list[dict[str, Any]]) -> Any:
        return lambda d: into.append({k: v.clone() if torch.is_tensor(v) else v for k, v in d.items()})

    x = start_points(SCHEDULE)
    helpers_k_diffusion.sampling().sample_dpmpp_2m(
        denoiser, x.clone(), SIGMAS, callback=keep(theirs), disable=True
    )
    k_diffusion.sample_dpmpp_2m(denoiser, x, SIGMAS, callback=keep(ours), disable=True)
    assert [sorted(d) for d in ours] == [sorted(d) for d in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a["i"] == b["i"] and a["sigma"] == pytest.approx(float(b["sigma"]))
        torch.testing.assert_close(a["x"], b["x"], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(a["denoised"], b["denoised"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", solver_names())
def test_any_solver(name: str) -> None:
    x = k_diffusion.sampler(name)(denoiser, start_points(SCHEDULE), SIGMAS, disable=True, seed=0)
    assert x.isfinite().all()


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([1.0], "`sigmas`"),
        ([1.0, float("nan")], "`sigmas`"),
        ([0.0, 0.0], "`sigmas`"),
        ([1.0, 2.0, 0.0], "`ts`"),
    ],
)
def test_bad_noise_levels(sigmas: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        k_diffusion.sample_euler(denoiser, start_points(SCHEDULE), sigmas, disable=True)


def test_bad_names_and_options() -> None:
    x = start_points(SCHEDULE)
    with pytest.raises(ValueError, match="unknown solver"):
        k_diffusion.sampler("best")(denoiser, x, SIGMAS, disable=True)
    with pytest.raises(TypeError, match="has no option s_churn"):
        k_diffusion.sample_euler(denoiser, x, SIGMAS, disable=True, s_churn=1.0)
