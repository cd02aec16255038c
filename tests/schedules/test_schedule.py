"""Every noise schedule: golden values, inverse, derivatives, numpy against torch, domains, descriptions."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from fastdiff_ops.schedules import EDM, VE, Discrete, FlowMatching, NoiseSchedule, VPCosine, VPLinear
from schedules.cases import SCHEDULES, TABLES, every_schedule, inner_times

QUANTITIES = [
    "alpha",
    "sigma",
    "alpha_dot",
    "sigma_dot",
    "lam",
    "log_alpha",
    "dlam_dt",
    "dlogalpha_dlam",
    "snr",
    "nsr",
    "model_time",
    "c_in",
]


# ---- golden values


def test_vp_linear_golden():
    t = [1e-3, 0.5, 1.0]
    np.testing.assert_allclose(VPLinear().alpha(t), [0.9999450265, 0.2811828808, 0.0065715865], atol=5e-11)
    np.testing.assert_allclose(VPLinear().lam(t), [4.5577149327, -1.2275677344, -5.0249784067], atol=5e-11)


def test_vp_cosine_golden():
    lam = VPCosine().lam([1e-3, 0.5, 0.9946])
    np.testing.assert_allclose(lam, [5.0474944057, -0.0123134414, -4.7776404694], atol=5e-11)


def test_flow_shift_multiplies_the_noise_ratio():
    t = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(FlowMatching(3.0).nsr(t), 3.0 * t / (1.0 - t), rtol=1e-14)
    np.testing.assert_allclose(FlowMatching(3.0).lam(t), FlowMatching().lam(t) - np.log(3.0), atol=1e-14)


def test_flow_ends_are_infinite_not_errors():
    flow = FlowMatching()
    assert flow.lam(1.0) == -np.inf
    assert flow.lam(0.0) == np.inf
    assert (flow.inv_lam(-np.inf), flow.inv_lam(np.inf)) == (1.0, 0.0)
    assert (flow.dlogalpha_dlam(0.0), flow.dlogalpha_dlam(1.0)) == (0.0, 1.0)


@pytest.mark.parametrize(("name", "power"), [("vp_linear", 2), ("vp_cosine", 2), ("sd-dpm", 2), ("flow", 1)])
def test_dlogalpha_dlam_closed_form(name, power):
    schedule = SCHEDULES[name]
    t = inner_times(schedule)
    np.testing.assert_allclose(schedule.dlogalpha_dlam(t), schedule.sigma(t) ** power, rtol=1e-10)


def test_vp_linear_dlam_dt_closed_form():
    schedule, t = VPLinear(), inner_times(VPLinear())
    np.testing.assert_allclose(
        schedule.dlam_dt(t), -(0.1 + 19.9 * t) / (2.0 * schedule.sigma(t) ** 2), rtol=1e-12
    )


def test_edm_sees_the_network_and_ve_does_not():
    t = np.array([0.002, 0.5, 80.0])
    edm, ve = EDM(), VE()
    np.testing.assert_allclose(edm.model_time(t), np.log(t) / 4.0, rtol=1e-15)
    np.testing.assert_allclose(edm.c_in(t), 1.0 / np.sqrt(t**2 + 0.25), rtol=1e-15)
    np.testing.assert_allclose(edm.c_skip(t), 0.25 / (t**2 + 0.25), rtol=1e-15)
    np.testing.assert_allclose(edm.c_out(t), 0.5 * t / np.sqrt(t**2 + 0.25), rtol=1e-15)
    np.testing.assert_array_equal(ve.model_time(t), t)
    np.testing.assert_array_equal(ve.c_in(t), np.ones(3))
    assert (edm.T, edm.t0, ve.T, ve.t0) == (80.0, 0.002, 80.0, 0.002)


# ---- tables


def test_table_nodes_in_both_readings():
    alphas_cumprod = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))
    n = np.arange(1000)
    for reading, t in (("dpm", (n + 1) / 1000), ("diffusers", n)):
        schedule = Discrete(alphas_cumprod, reading)
        np.testing.assert_allclose(schedule.alpha(t) ** 2, alphas_cumprod, rtol=1e-13)
        np.testing.assert_allclose(schedule.sigma(t) ** 2, 1.0 - alphas_cumprod, rtol=1e-11)
        np.testing.assert_allclose(schedule.model_time(t), n, atol=1e-9)
        np.testing.assert_array_equal(schedule.time_of_index(n), t)
        assert (schedule.sigma(schedule.t_data), schedule.alpha(schedule.t_data)) == (0.0, 1.0)
        assert (schedule.t0, schedule.T) == (t[0], t[-1])


def test_readings_between_nodes():
    alphas_cumprod = Discrete.from_table("scaled_linear").alphas_cumprod
    rho = np.sqrt((1.0 - alphas_cumprod) / alphas_cumprod)
    n = np.linspace(0.0, 999.0, 777)
    np.testing.assert_allclose(
        Discrete(alphas_cumprod, "diffusers").nsr(n), np.interp(n, np.arange(1000), rho), rtol=1e-13
    )
    log_alpha = np.interp(n, np.arange(1000), 0.5 * np.log(alphas_cumprod))
    np.testing.assert_allclose(Discrete(alphas_cumprod).log_alpha((n + 1) / 1000), log_alpha, rtol=1e-11)


def test_dpm_reading_extrapolates_beyond_the_table():
    schedule = TABLES["linear-dpm"]
    step = schedule.log_alpha(1.0) - schedule.log_alpha(0.999)
    assert schedule.log_alpha(1.002) == pytest.approx(schedule.log_alpha(1.0) + 2.0 * step, rel=1e-12)
    assert schedule.inv_lam(schedule.lam(1.002)) == pytest.approx(1.002, rel=1e-12)


def test_beta_tables_golden():
    linear, cosine = Discrete.from_table("linear"), Discrete.from_table("squaredcos_cap_v2")
    # the values of diffusers' float32 tables
    assert linear.nsr(1.0) == pytest.approx(157.40727, rel=1e-4)
    assert linear.nsr(linear.t0) == pytest.approx(0.0100005, rel=1e-6)
    assert 1.0 - cosine.alphas_cumprod[-1] / cosine.alphas_cumprod[-2] == pytest.approx(0.999, rel=1e-12)


def test_zero_terminal_snr_keeps_the_first_entry():
    plain = Discrete.from_table("scaled_linear", reading="diffusers")
    schedule = TABLES["zero-snr"]
    assert schedule.alphas_cumprod[-1] == 0.0
    assert schedule.alphas_cumprod[0] == pytest.approx(plain.alphas_cumprod[0], rel=1e-14)
    assert (schedule.alpha(999.0), schedule.sigma(999.0), schedule.lam(999.0)) == (0.0, 1.0, -np.inf)
    assert schedule.inv_lam(-np.inf) == 999.0
    assert np.all(np.diff(schedule.lam(np.linspace(997.0, 999.0, 201))) < 0.0)


def test_clip_drops_the_noisiest_entries():
    schedule = Discrete.from_table("squaredcos_cap_v2")
    clipped = schedule.clip(-5.1)
    assert 2 < clipped.num_train_timesteps < 1000
    assert clipped.lam(clipped.T) >= -5.1
    assert schedule.node_lambdas[clipped.num_train_timesteps] < -5.1


# ---- what holds for each


@every_schedule
def test_inverse_round_trip(schedule):
    t = inner_times(schedule)
    # relative to the distance from clean data, whose position is -1 in an index-timed table
    error = np.abs(schedule.inv_lam(schedule.lam(t)) - t) / (t - schedule.t_data)
    assert error.max() < 1e-10
    lam = np.linspace(max(schedule.lam(schedule.T), -12.0), 12.0, 999)
    assert np.abs(schedule.lam(schedule.inv_lam(lam)) - lam).max() < 1e-10
    assert schedule.inv_lam(np.inf) == schedule.t_data


@every_schedule
def test_lambda_decreases_in_time(schedule):
    assert np.all(np.diff(schedule.lam(np.sort(inner_times(schedule)))) < 0.0)


@every_schedule
def test_derivatives_against_autograd(schedule):
    times = inner_times(schedule)
    for quantity, derivative in (("alpha", "alpha_dot"), ("sigma", "sigma_dot"), ("lam", "dlam_dt")):
        t = torch.tensor(times, requires_grad=True)
        value = getattr(schedule, quantity)(t)
        expected = torch.zeros_like(t)
        if value.requires_grad:  # not VE's alpha
            (expected,) = torch.autograd.grad(value.sum(), t)
        # where sigma is nearly 1 it is the automatic derivative that has lost digits
        np.testing.assert_allclose(getattr(schedule, derivative)(times), expected, rtol=2e-9, atol=1e-12)


@every_schedule
def test_derivatives_against_finite_differences(schedule):
    # eighth order, away from the singular ends; in a table, around the middles of its intervals
    span = schedule.T - schedule.t_data
    t, h = schedule.t_data + span * np.linspace(0.06, 0.94, 45), 1e-3 * span
    if isinstance(schedule, Discrete):
        length = schedule.T - schedule.time_of_index(schedule.num_train_timesteps - 2)
        t, h = schedule.t_data + (np.floor((t - schedule.t_data) / length) + 0.5) * length, 0.02 * length
    weights = np.array([4.0 / 5.0, -1.0 / 5.0, 4.0 / 105.0, -1.0 / 280.0])
    for quantity, derivative in (
        ("alpha", schedule.alpha_dot(t)),
        ("sigma", schedule.sigma_dot(t)),
        ("log_alpha", schedule.dlogalpha_dlam(t) * schedule.dlam_dt(t)),
    ):
        f = getattr(schedule, quantity)
        slope = sum(w * (f(t + k * h) - f(t - k * h)) for k, w in enumerate(weights, 1)) / h
        np.testing.assert_allclose(slope, derivative, rtol=1e-8, atol=1e-14 * np.abs(f(t)).max() / h)


@every_schedule
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_torch_equals_numpy(schedule, quantity):
    t = inner_times(schedule)
    expected = getattr(schedule, quantity)(t)
    result = getattr(schedule, quantity)(torch.from_numpy(t))
    assert result.dtype == torch.float64
    # an ulp of the value, or of the ln(alpha) and ln(sigma) whose difference it is
    np.testing.assert_allclose(
        result.numpy(), expected, rtol=2e-14, atol=2e-15 if quantity != "lam" else 1e-14
    )


@every_schedule
def test_torch_inverse_equals_numpy(schedule):
    lam = schedule.lam(inner_times(schedule))
    np.testing.assert_allclose(
        schedule.inv_lam(torch.from_numpy(lam)).numpy(), schedule.inv_lam(lam), rtol=1e-12, atol=1e-12
    )


@every_schedule
def test_shapes_and_types(schedule):
    t = float(0.5 * (schedule.t0 + schedule.T))
    for value in (t, np.float64(t)):
        assert isinstance(schedule.sigma(value), np.float64)
        assert isinstance(schedule.inv_lam(schedule.lam(value)), np.float64)
    grid = np.full((2, 3), t)
    assert schedule.sigma(grid).shape == (2, 3)
    assert schedule.sigma([t, t]).dtype == np.float64
    assert schedule.sigma(np.zeros((0,)) + t).shape == (0,)
    for shape in ((), (3,), (2, 3), (0,)):
        tensor = torch.full(shape, t)
        assert tensor.dtype == torch.float32
        assert schedule.lam(tensor).shape == shape
        assert schedule.lam(tensor).dtype == torch.float64
        assert schedule.inv_lam(schedule.lam(tensor)).shape == shape


@every_schedule
def test_no_synchronisation(schedule):
    # a meta tensor has no values: whatever would read one on the host raises
    t = torch.empty(4, device="meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        t.sum().item()
    for quantity in QUANTITIES:
        assert getattr(schedule, quantity)(t).device == t.device
    assert schedule.inv_lam(schedule.lam(t)).shape == (4,)
    assert schedule.posterior_coefficients(t, t).shape == (4, 3)
    assert schedule.conversion(t, "eps", "x0")[0].shape == (4,)
    data = torch.empty(4, 3, device="meta")
    assert schedule.add_noise(data, t, data).shape == (4, 3)


@pytest.mark.gpu
@every_schedule
def test_no_synchronisation_on_a_gpu(schedule):
    t = torch.tensor([0.4, 0.5], dtype=torch.float64, device="cuda")
    data = torch.zeros(2, 3, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = [getattr(schedule, quantity)(t) for quantity in QUANTITIES]
        inverse = schedule.inv_lam(schedule.lam(t))
        schedule.add_noise(data, t, data)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for quantity, result in zip(QUANTITIES, results, strict=True):
        expected = getattr(schedule, quantity)(t.cpu())
        torch.testing.assert_close(result.cpu(), expected, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(inverse, t, rtol=1e-10, atol=0)


@every_schedule
def test_compiles_whole(schedule):
    def quantities(t):
        return schedule.lam(t), schedule.inv_lam(schedule.lam(t)), *schedule.conversion(t, "v", "x0")

    torch._dynamo.reset()
    t = torch.tensor([0.5, 0.75], dtype=torch.float64)
    compiled = torch.compile(quantities, fullgraph=True, backend="eager")
    for result, expected in zip(compiled(t), quantities(t), strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=0)


# ---- descriptions


@every_schedule
def test_description_round_trip(schedule):
    again = NoiseSchedule.from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert type(again) is type(schedule)
    assert again == schedule
    assert hash(again) == hash(schedule)
    t = inner_times(schedule)
    np.testing.assert_array_equal(again.lam(t), schedule.lam(t))
    assert pickle.loads(pickle.dumps(schedule)) == schedule == copy.deepcopy(schedule)


def test_different_schedules_differ():
    values = list(SCHEDULES.values())
    assert all((a == b) == (i == j) for i, a in enumerate(values) for j, b in enumerate(values))


def test_a_schedule_is_immutable():
    schedule = TABLES["linear-dpm"]
    with pytest.raises(AttributeError):
        VPLinear().beta_min = 1.0
    with pytest.raises(AttributeError):
        schedule.reading = "diffusers"
    with pytest.raises(ValueError, match="read-only"):
        schedule.alphas_cumprod[0] = 0.5
    own = np.array([0.9, 0.5])
    Discrete(own)
    own[0] = 0.8  # the schedule took a copy and left the caller's array alone


def test_an_own_schedule_is_one_class():
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Trigonometric(NoiseSchedule, kind="test-trigonometric"):
        scale: float = 0.5 * np.pi
        T, t0, t_max = 0.99, 0.01, 1.0

        def _alpha_sigma(self, xp, t):
            return xp.cos(self.scale * t), xp.sin(self.scale * t)

        def _alpha_sigma_dot(self, xp, t):
            return -self.scale * xp.sin(self.scale * t), self.scale * xp.cos(self.scale * t)

        def _inv_lam(self, xp, lam):
            return xp.arctan(xp.exp(-lam)) / self.scale

    schedule = Trigonometric()
    assert NoiseSchedule.from_dict(schedule.to_dict()) == schedule
    t = np.linspace(0.01, 0.99, 50)
    np.testing.assert_allclose(schedule.inv_lam(schedule.lam(t)), t, rtol=1e-13)
    np.testing.assert_allclose(schedule.dlogalpha_dlam(t), schedule.sigma(t) ** 2, rtol=1e-12)
