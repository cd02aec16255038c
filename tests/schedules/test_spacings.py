"""Time-step spacings: golden nodes, and the nodes of diffusers' schedulers and of k-diffusion themselves."""

from __future__ import annotations

import warnings

import helpers_k_diffusion
import numpy as np
import pytest
import torch
from fastdiff_ops.schedules import EDM, VE, Discrete, FlowMatching, VPCosine, VPLinear, timesteps
from schedules.cases import SCHEDULES

LINEAR = Discrete.from_table("linear", reading="diffusers")
NATIVE_ON_ALL = (
    "time_uniform",
    "time_quadratic",
    "logSNR",
    "exponential",
    "karras",
    "polyexponential",
    "beta",
)


# of numpy, about diffusers
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# ---- native family


def test_time_uniform_and_quadratic():
    t = timesteps(VPLinear(), 4)
    np.testing.assert_allclose(t, 1.0 + np.arange(5) / 4 * (1e-3 - 1.0), rtol=1e-15)
    t = timesteps(VPLinear(), 4, "time_quadratic")
    np.testing.assert_allclose(t, (1.0 + np.arange(5) / 4 * (np.sqrt(1e-3) - 1.0)) ** 2, rtol=1e-14)
    t = timesteps(VPLinear(), 4, "time_quadratic", power=7.0)
    np.testing.assert_allclose(np.diff(t ** (1.0 / 7.0)), np.diff(t ** (1.0 / 7.0))[0], rtol=1e-13)


@pytest.mark.parametrize("name", ["vp_linear", "vp_cosine", "edm", "sd-dpm", "sd-diffusers"])
def test_log_snr_is_uniform_in_lambda(name):
    schedule = SCHEDULES[name]
    steps = np.diff(schedule.lam(timesteps(schedule, 12, "logSNR")))
    np.testing.assert_allclose(steps, (schedule.lam(schedule.t0) - schedule.lam(schedule.T)) / 12, rtol=1e-9)


def test_karras_on_edm_is_the_formula():
    ramp = np.arange(19) / 18
    expected = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(timesteps(EDM(), 18, "karras"), expected, rtol=1e-12)


def test_karras_places_the_noise_ratio_on_any_schedule():
    levels = VPLinear().nsr(timesteps(VPLinear(), 9, "karras", rho=5.0)) ** 0.2
    np.testing.assert_allclose(np.diff(levels), np.diff(levels)[0], rtol=1e-10)


def test_flow_shift():
    u = 1.0 - np.arange(6) / 5
    shifted = timesteps(FlowMatching(), 5, "flow", shift=3.0)
    np.testing.assert_allclose(shifted, 3.0 * u / (1.0 + 2.0 * u), rtol=1e-15)
    # the same nodes as uniform time of the shifted schedule
    np.testing.assert_allclose(FlowMatching(3.0).sigma(timesteps(FlowMatching(3.0), 5)), shifted, rtol=1e-15)
    part = timesteps(FlowMatching(), 5, "flow", shift=3.0, t_start=0.9, t_end=0.1)
    np.testing.assert_allclose(
        np.diff(part / (3.0 - 2.0 * part)), np.diff(part / (3.0 - 2.0 * part))[0], rtol=1e-13
    )


@pytest.mark.parametrize("spacing", NATIVE_ON_ALL)
@pytest.mark.parametrize("final_sigma", ["zero", "sigma_min"])
@pytest.mark.parametrize("name", ["vp_linear", "vp_cosine", "edm", "sd-dpm", "sd-diffusers"])
def test_ends_are_exact(name, final_sigma, spacing):
    schedule = SCHEDULES[name]
    for n in (1, 2, 3, 10, 100):
        t = timesteps(schedule, n, spacing, final_sigma=final_sigma)
        assert t.dtype == np.float64
        assert t.shape == (n + 1,)
        assert np.all(np.diff(t) < 0.0)
        assert t[0] == schedule.T
        assert t[-1] == (schedule.t_data if final_sigma == "zero" else schedule.t0)
        if final_sigma == "zero":
            assert n == 1 or t[-2] == schedule.t0
            if n > 1:
                np.testing.assert_array_equal(t[:-1], timesteps(schedule, n - 1, spacing))


def test_own_ends():
    t = timesteps(VPLinear(), 5, "logSNR", t_start=0.7, t_end=1e-4)
    assert (t[0], t[-1]) == (0.7, 1e-4)
    flow = timesteps(FlowMatching(), 5, "logSNR", t_start=0.999, t_end=0.001)
    np.testing.assert_allclose(np.diff(FlowMatching().lam(flow)), 2.0 * np.log(999.0) / 5, rtol=1e-10)
    # the linear path ends in data anyway: final_sigma adds nothing
    np.testing.assert_array_equal(
        timesteps(FlowMatching(), 4, final_sigma="zero"), [1.0, 0.75, 0.5, 0.25, 0.0]
    )


# ---- k-diffusion


@pytest.mark.parametrize("n", [2, 5, 17])
def test_equal_k_diffusion(n):
    sampling, ve = helpers_k_diffusion.sampling(), VE(0.03, 14.6)
    with helpers_k_diffusion.float64_default():
        expected = {
            ("karras", 7.0): sampling.get_sigmas_karras(n, 0.03, 14.6),
            ("karras", 4.0): sampling.get_sigmas_karras(n, 0.03, 14.6, rho=4.0),
            ("exponential", None): sampling.get_sigmas_exponential(n, 0.03, 14.6),
            ("polyexponential", 1.0): sampling.get_sigmas_polyexponential(n, 0.03, 14.6),
            ("polyexponential", 0.7): sampling.get_sigmas_polyexponential(n, 0.03, 14.6, rho=0.7),
        }
        vp = sampling.get_sigmas_vp(n)
    for (spacing, rho), sigmas in expected.items():
        options = {} if rho is None else {"rho": rho}
        t = timesteps(ve, n, spacing, final_sigma="zero", **options)
        np.testing.assert_allclose(ve.sigma(t), sigmas, rtol=1e-12, err_msg=f"{spacing} {rho}")
    t = timesteps(VPLinear(), n, "time_uniform", final_sigma="zero")
    np.testing.assert_allclose(VPLinear().nsr(t), vp, rtol=1e-12)


# ---- diffusers: golden positions, then its schedulers


@pytest.mark.parametrize(
    ("family", "spacing", "positions"),
    [
        ("ddim", "linspace", [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]),
        ("ddim", "leading", [900, 800, 700, 600, 500, 400, 300, 200, 100, 0]),
        ("ddim", "trailing", [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]),
        ("dpm", "linspace", [999, 899, 799, 699, 599, 500, 400, 300, 200, 100]),
        ("dpm", "leading", [900, 810, 720, 630, 540, 450, 360, 270, 180, 90]),
        ("dpm", "trailing", [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]),
        ("euler", "linspace", [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]),
        ("euler", "leading", [900, 800, 700, 600, 500, 400, 300, 200, 100, 0]),
        ("euler", "trailing", [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]),
    ],
)
def test_golden_positions(family, spacing, positions):
    np.testing.assert_allclose(timesteps(LINEAR, 10, spacing, family), [*positions, -1], rtol=1e-14)
    reading = Discrete.from_table("linear", reading="dpm")
    t = timesteps(reading, 10, spacing, family)
    np.testing.assert_allclose(reading.model_time(t), [*positions, -1], rtol=1e-12)


def test_golden_karras_and_flow():
    t = timesteps(LINEAR, 10, "karras", "dpm")
    levels = LINEAR.nsr(t)
    ramp = np.linspace(0.0, 1.0, 10)
    expected = (157.40727 ** (1 / 7) + ramp * (0.0100013 ** (1 / 7) - 157.40727 ** (1 / 7))) ** 7
    np.testing.assert_allclose(levels[:-1], expected, rtol=2e-4)  # the ends are of a float32 table
    assert levels[-1] == 0.0
    flow = FlowMatching(3.0)
    expected = [1.0, 0.90035909, 0.75112110, 0.50298506, 0.00892857, 0.0]
    np.testing.assert_allclose(flow.sigma(timesteps(flow, 5, "linspace", "euler")), expected, atol=5e-9)


def scheduler_of(name: str, **config):
    diffusers = pytest.importorskip("diffusers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(diffusers, name)(**config)


def table_of(scheduler) -> Discrete:
    """The scheduler's own (float32) table, so that only our formulas are compared."""
    return Discrete(scheduler.alphas_cumprod.double().numpy(), "diffusers")


TABLES = [
    {"beta_schedule": "linear"},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 400},
]
table_configs = pytest.mark.parametrize("table", TABLES, ids=lambda t: t["beta_schedule"])
STEPS = (1, 2, 3, 7, 10, 25, 50, 99)


@table_configs
def test_beta_tables_equal_diffusers(table):
    scheduler = scheduler_of("DDIMScheduler", **table)
    ours = Discrete.from_table(
        table["beta_schedule"],
        table.get("num_train_timesteps", 1000),
        table.get("beta_start"),
        table.get("beta_end"),
    )
    np.testing.assert_allclose(ours.alphas_cumprod, scheduler.alphas_cumprod, rtol=2e-4)
    if table["beta_schedule"] != "squaredcos_cap_v2":
        rescaled = scheduler_of("DDIMScheduler", rescale_betas_zero_snr=True, **table)
        zero = Discrete.from_table(
            table["beta_schedule"],
            beta_start=table.get("beta_start"),
            beta_end=table.get("beta_end"),
            zero_terminal_snr=True,
            reading="diffusers",
        )
        np.testing.assert_allclose(zero.alphas_cumprod, rescaled.alphas_cumprod, rtol=2e-3, atol=1e-9)


@table_configs
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_equal_ddim(spacing, offset, table):
    scheduler = scheduler_of("DDIMScheduler", timestep_spacing=spacing, steps_offset=offset, **table)
    schedule = table_of(scheduler)
    options = {"steps_offset": offset} if spacing == "leading" else {}
    for n in STEPS:
        scheduler.set_timesteps(n)
        t = timesteps(schedule, n, spacing, "ddim", **options)
        np.testing.assert_array_equal(t[:-1], scheduler.timesteps)
        assert schedule.alpha(t[-1]) == 1.0 == scheduler.final_alpha_cumprod


@table_configs
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize(
    ("name", "final_sigma"),
    [
        ("DPMSolverMultistepScheduler", "zero"),
        ("DPMSolverMultistepScheduler", "sigma_min"),
        ("UniPCMultistepScheduler", "zero"),
        ("UniPCMultistepScheduler", "sigma_min"),
        ("DEISMultistepScheduler", "sigma_min"),
    ],
)
def test_equal_dpm(name, final_sigma, spacing, table):
    config = {} if name.startswith("DEIS") else {"final_sigmas_type": final_sigma}
    scheduler = scheduler_of(name, timestep_spacing=spacing, **config, **table)
    schedule = table_of(scheduler)
    for n in STEPS:
        scheduler.set_timesteps(n)
        t = timesteps(schedule, n, spacing, "dpm", final_sigma=final_sigma)
        np.testing.assert_array_equal(t[:-1], scheduler.timesteps)
        np.testing.assert_allclose(schedule.nsr(t), scheduler.sigmas, rtol=2e-6)


@table_configs
@pytest.mark.parametrize("spacing", ["karras", "exponential", "beta"])
def test_equal_dpm_noise_levels(spacing, table):
    scheduler = scheduler_of("DPMSolverMultistepScheduler", **{f"use_{spacing}_sigmas": True}, **table)
    schedule = table_of(scheduler)
    for n in STEPS:
        scheduler.set_timesteps(n)
        t = timesteps(schedule, n, spacing, "dpm")
        np.testing.assert_allclose(schedule.nsr(t), scheduler.sigmas, rtol=3e-6)
        index = schedule.sigma_to_index(schedule.nsr(t[:-1]))
        if spacing == "karras" and table["beta_schedule"] != "squaredcos_cap_v2":
            index = index.round()
        # truncated there to integers; float32 logarithms may fall on the other side of one
        assert np.abs(index - scheduler.timesteps.numpy()).max() < 1.0 + 1e-3
    lu = scheduler_of("DPMSolverMultistepScheduler", use_lu_lambdas=True, **table)
    lu.set_timesteps(10)
    np.testing.assert_allclose(
        schedule.nsr(timesteps(schedule, 10, "exponential", "dpm")), lu.sigmas, rtol=5e-6
    )


def test_equal_dpm_clipped():
    config = {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}
    scheduler = scheduler_of("DPMSolverMultistepScheduler", **config)
    schedule = table_of(scheduler)
    for n in STEPS:
        scheduler.set_timesteps(n)
        t = timesteps(schedule, n, "linspace", "dpm", lambda_min_clipped=-5.1)
        np.testing.assert_array_equal(t[:-1], scheduler.timesteps)
        assert t[0] < 999.0


@table_configs
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_equal_euler(spacing, offset, table):
    scheduler = scheduler_of("EulerDiscreteScheduler", timestep_spacing=spacing, steps_offset=offset, **table)
    schedule = table_of(scheduler)
    options = {"steps_offset": offset} if spacing == "leading" else {}
    for n in STEPS:
        scheduler.set_timesteps(n)
        t = timesteps(schedule, n, spacing, "euler", **options)
        np.testing.assert_allclose(t[:-1], scheduler.timesteps, rtol=1e-6)
        np.testing.assert_allclose(schedule.nsr(t), scheduler.sigmas, rtol=2e-5)


@table_configs
@pytest.mark.parametrize("base", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("spacing", ["karras", "exponential", "beta"])
def test_equal_euler_noise_levels(spacing, base, table):
    config = {f"use_{spacing}_sigmas": True, "timestep_spacing": base, "steps_offset": 1}
    scheduler = scheduler_of("EulerDiscreteScheduler", **config, **table)
    schedule = table_of(scheduler)
    options = {"steps_offset": 1} if base == "leading" else {}
    for n in STEPS:
        scheduler.set_timesteps(n)
        t = timesteps(schedule, n, spacing, "euler", base=base, **options)
        np.testing.assert_allclose(schedule.nsr(t), scheduler.sigmas, rtol=2e-5)
        index = schedule.sigma_to_index(schedule.nsr(t[:-1]))
        np.testing.assert_allclose(index, scheduler.timesteps, rtol=1e-4, atol=2e-2)


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
@pytest.mark.parametrize("spacing", ["linspace", "karras", "exponential", "beta"])
def test_equal_flow_match_euler(spacing, shift):
    config = {} if spacing == "linspace" else {f"use_{spacing}_sigmas": True}
    scheduler = scheduler_of("FlowMatchEulerDiscreteScheduler", shift=shift, **config)
    flow = FlowMatching(shift)
    for n in STEPS:
        scheduler.set_timesteps(n)
        t = timesteps(flow, n, spacing, "euler")
        np.testing.assert_allclose(flow.sigma(t), scheduler.sigmas, rtol=2e-6)
        np.testing.assert_allclose(1000.0 * flow.model_time(t[:-1]), scheduler.timesteps, rtol=2e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_equal_dpm_flow(shift):
    config = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}
    scheduler = scheduler_of("DPMSolverMultistepScheduler", **config)
    flow = FlowMatching(shift)
    for n in STEPS:
        scheduler.set_timesteps(n)
        np.testing.assert_allclose(
            flow.sigma(timesteps(flow, n, "linspace", "dpm")), scheduler.sigmas, rtol=1e-6
        )


# ---- bad input


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((VPLinear(), 0), {}, "`n` must be at least 1, got 0"),
        ((VPLinear(), 5, "uniform"), {}, "`spacing` must be one of .*'time_uniform'.*got 'uniform'"),
        (
            (LINEAR, 5, "time_uniform", "ddim"),
            {},
            r"must be one of \['leading', 'linspace', 'trailing'\]",
        ),
        (
            (LINEAR, 5, "linspace", "heun"),
            {},
            r"`family` must be one of \['ddim', 'dpm', 'euler', ",
        ),
        ((VPLinear(), 5, "linspace", "ddim"), {}, r"`family` must be one of \['native'\]"),
        (
            (VPLinear(), 5),
            {"rho": 7.0},
            r"takes the options \[\], got also \['rho'\]",
        ),
        (
            (VPLinear(), 5, "karras"),
            {"sigma_min": 7.0},
            r"options \['rho'\], got also \['sigma_min'\]",
        ),
        ((VPLinear(), 5, "karras"), {"rho": 0.0}, "`rho` must be finite and positive"),
        ((VPLinear(), 5), {"final_sigma": "none"}, "`final_sigma` must be 'zero' or 'sigma_min'"),
        ((VPLinear(), 5), {"t_start": 1.5}, "`t_start`, `t_end` must satisfy"),
        ((VPLinear(), 5), {"t_start": 0.1, "t_end": 0.2}, "`t_start`, `t_end` must satisfy"),
        ((VPLinear(), 5), {"t_end": float("nan")}, "`t_start`, `t_end` must satisfy"),
        ((LINEAR, 5, "linspace", "dpm"), {"t_end": 10.0}, "belong to the native family"),
        ((LINEAR, 5, "time_quadratic"), {"t_end": -1.0}, "`t_end` must not be negative"),
        ((FlowMatching(), 5, "logSNR"), {}, "finite lambda for this spacing, got lambda -inf at t_start"),
        ((FlowMatching(), 5, "logSNR"), {"t_start": 0.9}, "got lambda 2.* at t_start|and inf at t_end"),
        ((VPCosine(), 5, "flow"), {}, "`spacing` 'flow' needs a FlowMatching schedule"),
        ((FlowMatching(), 5, "flow"), {"shift": -1.0}, "`shift` must be finite and positive"),
        ((LINEAR, 1001, "leading", "ddim"), {}, "repeats nodes"),
        ((LINEAR, 10, "linspace", "ddim"), {"final_sigma": "sigma_min"}, "repeats nodes"),
        ((LINEAR, 10, "leading", "ddim"), {"steps_offset": 200}, "leaves the schedule"),
        ((LINEAR, 10, "karras", "euler"), {"base": "native"}, "`base` must be one of"),
        ((LINEAR, 10, "karras", "euler"), {"steps_offset": 1}, "`steps_offset` belongs to `base` 'leading'"),
        ((SCHEDULES["zero-snr"], 10, "karras", "dpm"), {}, "zero terminal SNR"),
        ((FlowMatching(), 10, "linspace", "euler"), {"num_train_timesteps": 0}, "`num_train_timesteps`"),
    ],
)
def test_bad_input(args, options, message):
    with pytest.raises(ValueError, match=message):
        timesteps(*args, **options)


@pytest.mark.parametrize("n", [2.0, "2", True, None, torch.tensor(2)])
def test_number_of_steps_of_wrong_type(n):
    with pytest.raises(TypeError, match="`n` must be an int"):
        timesteps(VPLinear(), n)


def test_beta_without_scipy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.special", None)
    with pytest.raises(ImportError, match="needs scipy"):
        timesteps(VPLinear(), 5, "beta")
