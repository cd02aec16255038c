"""Conversion between predictions, forward noising and the Gaussian posterior."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from fastdiff_ops.schedules import EDM, PREDICTION_TYPES, VE, FlowMatching, NoiseSchedule, VPCosine, VPLinear
from schedules.cases import SCHEDULES, every_schedule


def prediction_types(schedule: NoiseSchedule) -> list[str]:
    return [p for p in PREDICTION_TYPES if p != "edm" or isinstance(schedule, EDM)]


def predictions(
    schedule: NoiseSchedule, t: np.ndarray, x0: np.ndarray, eps: np.ndarray
) -> dict[str, np.ndarray]:
    """What a network of each type would ideally say, from the definitions."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x = alpha * x0 + sigma * eps
    result = {
        "eps": eps,
        "x0": x0,
        "v": alpha * eps - sigma * x0,
        "score": -eps / sigma,
        "velocity": schedule.alpha_dot(t) * x0 + schedule.sigma_dot(t) * eps,
    }
    if isinstance(schedule, FlowMatching):
        result["velocity"] = eps - x0
    if isinstance(schedule, EDM):
        result["edm"] = (x0 - schedule.c_skip(t) * x) / schedule.c_out(t)
    return result


@every_schedule
def test_every_pair_converts(schedule):
    t = np.linspace(schedule.t0 + 0.05 * (schedule.T - schedule.t0), 0.95 * schedule.T, 23)
    rng = np.random.default_rng(0)
    x0, eps = rng.standard_normal((2, len(t)))
    x = schedule.alpha(t) * x0 + schedule.sigma(t) * eps
    known = predictions(schedule, t, x0, eps)
    assert set(known) == set(prediction_types(schedule))
    for src, dst in itertools.product(known, known):
        c_x, c_o = schedule.conversion(t, src, dst)
        np.testing.assert_allclose(
            c_x * x + c_o * known[src], known[dst], rtol=1e-9, atol=1e-9, err_msg=f"{src}->{dst}"
        )


@every_schedule
def test_there_and_back_is_the_identity(schedule):
    t = np.linspace(schedule.t0 + 0.05 * (schedule.T - schedule.t0), 0.95 * schedule.T, 23)
    for src, dst in itertools.product(prediction_types(schedule), repeat=2):
        (a, b), (c, d) = schedule.conversion(t, src, dst), schedule.conversion(t, dst, src)
        np.testing.assert_allclose(d * b, 1.0, rtol=1e-9, err_msg=f"{src}->{dst}")
        np.testing.assert_allclose(
            c + d * a, 0.0, atol=1e-9 * np.abs(c).max() + 1e-12, err_msg=f"{src}->{dst}"
        )


def test_rows_of_the_table_of_conversions():
    flow, vp, t = FlowMatching(), VPLinear(), 0.3
    a, s = vp.alpha(t), vp.sigma(t)
    expected = {
        (vp, "eps", "x0"): (1.0 / a, -s / a),
        (vp, "x0", "eps"): (1.0 / s, -a / s),
        (vp, "v", "x0"): (a, -s),
        (vp, "v", "eps"): (s, a),
        (vp, "score", "x0"): (1.0 / a, s**2 / a),
        (vp, "score", "eps"): (0.0, -s),
        (flow, "velocity", "x0"): (1.0, -0.3),
        (flow, "velocity", "eps"): (1.0, 0.7),
        (flow, "x0", "velocity"): (1.0 / 0.3, -1.0 / 0.3),
        (EDM(), "edm", "x0"): (0.25 / 0.34, 0.15 / np.sqrt(0.34)),
    }
    for (schedule, src, dst), row in expected.items():
        np.testing.assert_allclose(schedule.conversion(t, src, dst), row, rtol=1e-14, atol=1e-16)


def test_ends_that_need_no_division():
    flow, edm = FlowMatching(), EDM()
    assert flow.conversion(1.0, "eps", "eps") == (0.0, 1.0)
    assert flow.conversion(0.0, "x0", "x0") == (0.0, 1.0)
    assert flow.conversion(1.0, "velocity", "x0") == (1.0, -1.0)
    assert flow.conversion(0.0, "velocity", "x0") == (1.0, 0.0)
    assert flow.conversion(1.0, "score", "eps") == (0.0, -1.0)
    assert flow.conversion(1.0, "eps", "score") == (0.0, -1.0)
    assert flow.conversion(0.0, "score", "x0") == (1.0, 0.0)
    assert edm.conversion(0.0, "edm", "x0") == (1.0, 0.0)
    zero_snr = SCHEDULES["zero-snr"]
    assert zero_snr.conversion(999.0, "v", "x0") == (0.0, -1.0)


@pytest.mark.parametrize(
    ("schedule", "t", "src", "dst"),
    [
        (FlowMatching(), 1.0, "eps", "x0"),
        (FlowMatching(), 1.0, "score", "x0"),
        (FlowMatching(), [0.5, 1.0], "eps", "velocity"),
        (FlowMatching(), 0.0, "x0", "eps"),
        (FlowMatching(), 0.0, "x0", "velocity"),
        (FlowMatching(), 0.0, "eps", "score"),
        (VPCosine(), 1.0, "eps", "x0"),
        (VPLinear(), 0.0, "x0", "eps"),
        (VPLinear(), 0.0, "velocity", "x0"),
        (VE(), 0.0, "x0", "eps"),
        (SCHEDULES["zero-snr"], 999, "eps", "x0"),
    ],
)
def test_division_by_zero_is_an_error(schedule, t, src, dst):
    with pytest.raises(ValueError, match=f"`src` '{src}' cannot become '{dst}' at t = .*divides by zero"):
        schedule.conversion(t, src, dst)


@pytest.mark.parametrize(
    ("schedule", "src", "dst", "message"),
    [
        (
            VPLinear(),
            "epsilon",
            "x0",
            r"`src` must be one of \('eps', 'x0', 'v', 'score', 'velocity', 'edm'\)",
        ),
        (VPLinear(), "eps", "sample", "`dst` must be one of"),
        (VPLinear(), "edm", "x0", "`src` 'edm'.*needs schedule EDM"),
        (VE(), "x0", "edm", "`dst` 'edm'.*needs schedule EDM"),
    ],
)
def test_unknown_predictions(schedule, src, dst, message):
    with pytest.raises(ValueError, match=message):
        schedule.conversion(0.5, src, dst)


@every_schedule
def test_conversion_of_tensors_equals_that_of_numbers(schedule):
    t = np.linspace(schedule.t0 + 0.1 * (schedule.T - schedule.t0), 0.9 * schedule.T, 7)
    for src, dst in itertools.product(prediction_types(schedule), repeat=2):
        tensors = schedule.conversion(torch.from_numpy(t), src, dst)
        for result, expected in zip(tensors, schedule.conversion(t, src, dst), strict=True):
            assert result.dtype == torch.float64
            np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_convert_applies_a_row_per_sample(dtype):
    schedule, t = VPLinear(), torch.tensor([0.2, 0.8])
    x, output = (torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(k)).to(dtype) for k in (0, 1))
    result = schedule.convert(x, output, t, "v", "eps")
    assert result.dtype == dtype
    c_x, c_o = (c.reshape(2, 1, 1) for c in schedule.conversion(t, "v", "eps"))
    expected = c_x * x.double() + c_o * output.double()
    tolerance = {torch.float64: 1e-15, torch.float32: 1e-6}.get(dtype, torch.finfo(dtype).eps)
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)
    with pytest.raises(TypeError, match="`x` must be a floating-point tensor"):
        schedule.convert(x.long(), output, t, "v", "eps")
    with pytest.raises(ValueError, match=r"`output` must have x's shape \(2, 3, 4\), got \(2, 4\)"):
        schedule.convert(x, output[:, 0], t, "v", "eps")


# ---- forward noising


@every_schedule
def test_path_coefficients_are_the_definitions(schedule):
    t = np.linspace(schedule.t0 + 0.05 * (schedule.T - schedule.t0), 0.95 * schedule.T, 11)
    for target in prediction_types(schedule):
        coef, target_coef = schedule.path_coefficients(t, target)
        assert coef.shape == target_coef.shape == (11, 2)
        np.testing.assert_array_equal(coef, np.stack([schedule.alpha(t), schedule.sigma(t)], -1))
        from_data = predictions(schedule, t, np.ones(11), np.zeros(11))[target]
        from_noise = predictions(schedule, t, np.zeros(11), np.ones(11))[target]
        np.testing.assert_allclose(target_coef, np.stack([from_data, from_noise], -1), rtol=1e-12, atol=1e-12)
        rows = schedule.path_coefficients(torch.from_numpy(t), target)
        np.testing.assert_allclose(rows[1].numpy(), target_coef, rtol=1e-12, atol=1e-13)


def test_targets_need_no_conversion_at_the_ends():
    # a loss on eps or velocity is well defined where the conversion is not
    coef, target = FlowMatching().path_coefficients([0.0, 1.0], "eps")
    np.testing.assert_array_equal(coef, [[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(target, [[0.0, 1.0], [0.0, 1.0]])
    np.testing.assert_array_equal(
        FlowMatching(3.0).path_coefficients([0.0, 1.0], "velocity")[1], [[-1, 1], [-1, 1]]
    )
    with pytest.raises(ValueError, match="`target` must be one of"):
        FlowMatching().path_coefficients(0.5, "noise")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "t", [0.25, np.array([0.25, 0.5]), torch.tensor([0.25, 0.5])], ids=["float", "numpy", "torch"]
)
def test_add_noise(dtype, t):
    schedule = VPLinear()
    x0, noise = (torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(k)).to(dtype) for k in (0, 1))
    x_t = schedule.add_noise(x0, t, noise)
    assert x_t.dtype == dtype
    alpha, sigma = (torch.as_tensor(f(t)).reshape(-1, 1, 1) for f in (schedule.alpha, schedule.sigma))
    tolerance = {torch.float64: 1e-15, torch.float32: 1e-6}.get(dtype, torch.finfo(dtype).eps)
    expected = alpha * x0.double() + sigma * noise.double()
    torch.testing.assert_close(x_t.double(), expected, rtol=tolerance, atol=tolerance)


def test_add_noise_equals_diffusers():
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler()
    schedule = SCHEDULES["linear-diffusers"]
    x0, noise = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).unbind()
    index = torch.tensor([0, 10, 500, 999])
    expected = scheduler.add_noise(x0, noise, index)
    torch.testing.assert_close(schedule.add_noise(x0, index, noise), expected, rtol=1e-5, atol=1e-6)


def test_add_noise_is_differentiable():
    x0 = torch.randn(
        2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    t = torch.tensor([0.3, 0.6], dtype=torch.float64, requires_grad=True)
    noise = torch.ones(2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, t: VPLinear().add_noise(x, t, noise), (x0, t))


def test_add_noise_draws_from_a_seed():
    pytest.importorskip("fastdiff_ops.ops.random")
    schedule, x0 = VPLinear(), torch.zeros(2, 8)
    torch.testing.assert_close(schedule.add_noise(x0, 1.0, seed=3), schedule.add_noise(x0, 1.0, seed=3))
    assert not torch.equal(schedule.add_noise(x0, 1.0, seed=3), schedule.add_noise(x0, 1.0, seed=4))


def test_add_noise_refuses():
    schedule, x0 = VPLinear(), torch.zeros(2, 3)
    with pytest.raises(TypeError, match="`x0` must be a floating-point tensor"):
        schedule.add_noise(x0.long(), 0.5, x0)
    with pytest.raises(ValueError, match=r"`noise` must have x0's shape \(2, 3\), got \(2, 4\)"):
        schedule.add_noise(x0, 0.5, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="`seed` has no meaning"):
        schedule.add_noise(x0, 0.5, x0, seed=1)
    with pytest.raises(ValueError, match=r"`t` must be in \["):
        schedule.add_noise(x0, 5.0, x0)
    with pytest.raises(ValueError, match=r"`t` must have shape \(\) or \(2,\), got \(3,\)"):
        schedule.add_noise(x0, torch.full((3,), 0.5), x0)


# ---- posterior


def brute_force_posterior(schedule: NoiseSchedule, t: float, s: float) -> tuple[float, float, float]:
    """Condition the joint Gaussian of (x_s, x_t), given x0, on x_t: coefficients of x0 and x_t, deviation."""
    a_s, a_t, v_s, v_t = schedule.alpha(s), schedule.alpha(t), schedule.sigma(s) ** 2, schedule.sigma(t) ** 2
    cross = a_t / a_s * v_s  # x_t = (a_t / a_s) x_s + independent noise
    gain = cross / v_t
    return a_s - gain * a_t, gain, np.sqrt(v_s - gain * cross)


def time_pairs(schedule: NoiseSchedule) -> list[tuple[float, float]]:
    t = np.linspace(schedule.t0, schedule.T, 7)
    t[0] += 0.02 * (t[1] - t[0])
    t[-1] -= 0.02 * (t[-1] - t[-2])
    return [(b, a) for a, b in itertools.combinations(t, 2)]


@every_schedule
def test_posterior_is_conditioning_the_joint_gaussian(schedule):
    for t, s in time_pairs(schedule):
        expected = brute_force_posterior(schedule, t, s)
        np.testing.assert_allclose(schedule.posterior_coefficients(t, s), expected, rtol=1e-8, atol=1e-10)


@every_schedule
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_posterior_family_has_the_right_marginal(schedule, eta):
    # given x0, every member carries the law of x_t to that of x_s, with eta^2 times the Markov variance
    for t, s in time_pairs(schedule):
        c_0, c_t, deviation = schedule.posterior_coefficients(t, s, eta)
        assert c_0 + c_t * schedule.alpha(t) == pytest.approx(schedule.alpha(s), rel=1e-12)
        variance = (c_t * schedule.sigma(t)) ** 2 + deviation**2
        assert variance == pytest.approx(schedule.sigma(s) ** 2, rel=1e-12)
        assert deviation == pytest.approx(eta * schedule.posterior_coefficients(t, s)[2], rel=1e-13)


def test_posterior_ends():
    flow = FlowMatching()
    np.testing.assert_array_equal(flow.posterior_coefficients(0.5, 0.0), [1.0, 0.0, 0.0])
    np.testing.assert_allclose(flow.posterior_coefficients(1.0, 0.4), [0.6, 0.0, 0.4], atol=1e-15)
    np.testing.assert_allclose(flow.posterior_coefficients(1.0, 0.4, eta=0.0), [0.6, 0.4, 0.0], atol=1e-15)
    np.testing.assert_array_equal(flow.posterior_coefficients(1.0, 0.0), [1.0, 0.0, 0.0])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_posterior_of_neighbouring_times_keeps_its_digits(eta):
    mpmath = pytest.importorskip("mpmath")
    schedule = VPLinear()

    def log_alpha(t):
        return -(mpmath.mpf(t) ** 2) * mpmath.mpf(19.9) / 4 - mpmath.mpf(t) * mpmath.mpf(0.1) / 2

    with mpmath.workdps(60):
        for t, gap in itertools.product([0.01, 0.5, 1.0], [1e-4, 1e-7]):
            s = t - gap
            a_t, a_s = mpmath.exp(log_alpha(t)), mpmath.exp(log_alpha(s))
            v_t, v_s = 1 - a_t**2, 1 - a_s**2
            fresh = v_t - (a_t / a_s) ** 2 * v_s
            deviation = eta * mpmath.sqrt(fresh * v_s / v_t)
            c_t = mpmath.sqrt(v_s - deviation**2) / mpmath.sqrt(v_t)
            expected = [float(a_s - a_t * c_t), float(c_t), float(deviation)]
            # what remains is the rounding of lambda(t) - lambda(s), 1e-16 in a difference of order 10 gap
            np.testing.assert_allclose(
                schedule.posterior_coefficients(t, s, eta), expected, rtol=3e-16 / gap + 1e-13
            )


def test_posterior_squares_are_not_subtracted():
    # around sigma = 1 of this path lambda itself is exact: so must the coefficients be, at any gap
    for gap in (2.0**-20, 2.0**-40):
        s = 1.0 - gap
        fresh = gap * (1.0 + s)
        expected = [fresh, s**2, s * np.sqrt(fresh)]
        np.testing.assert_allclose(VE().posterior_coefficients(1.0, s), expected, rtol=1e-14)
        np.testing.assert_allclose(VE().posterior_coefficients(1.0, s, 0.0), [gap, s, 0.0], rtol=1e-14)


def test_posterior_broadcasts_and_takes_tensors():
    schedule = VPLinear()
    t, s = np.array([[0.5], [0.9]]), np.array([0.1, 0.2, 0.3])
    expected = schedule.posterior_coefficients(t, s, 0.5)
    assert expected.shape == (2, 3, 3)
    for args in (
        (torch.from_numpy(t), torch.from_numpy(s)),
        (torch.from_numpy(t), s),
        (t, torch.from_numpy(s)),
    ):
        result = schedule.posterior_coefficients(*args, 0.5)
        assert result.dtype == torch.float64
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-13)


def test_posterior_refuses():
    for s in (0.5, 0.6):
        with pytest.raises(ValueError, match="`s` must have a larger lambda than `t`"):
            VPLinear().posterior_coefficients(0.5, s)
    for eta in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"`eta` must be in \[0, 1\]"):
            VPLinear().posterior_coefficients(0.5, 0.1, eta)
    with pytest.raises(ValueError, match=r"`s` must be in \["):
        VPLinear().posterior_coefficients(0.5, -0.1)


def test_posterior_equals_diffusers_variance():
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler()
    schedule = SCHEDULES["linear-diffusers"]
    for t, s in ((999, 900), (500, 480), (100, 0)):
        variance = schedule.posterior_coefficients(t, s)[2] ** 2
        assert variance == pytest.approx(float(scheduler._get_variance(t, s)), rel=2e-4)
