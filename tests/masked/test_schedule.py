"""Masking schedules: formulas, inverses to the last digits that exist, torch as numpy, hitting times."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fastdiff_ops import ops
from fastdiff_ops.masked import MaskSchedule
from fastdiff_ops.masked.schedule import FromAlpha, Geometric
from scipy import stats

T = np.linspace(0.0, 1.0, 1000)
SCHEDULES = [
    MaskSchedule.from_name("loglinear"),
    MaskSchedule.from_name("loglinear", eps=1e-3),
    MaskSchedule.from_name("cosine"),
    MaskSchedule.from_name("cosine_mdlm", eps=1e-3),
    MaskSchedule.from_name("cosine2", eps=1e-3),
    MaskSchedule.from_name("polynomial", r=3.0),
    MaskSchedule.from_name("polynomial", r=0.5),
    MaskSchedule.from_name("linear_sigma", sigma_min=1e-3, sigma_max=7.0),
    MaskSchedule.from_name("geometric", sigma_min=1e-4, sigma_max=5.0),
    MaskSchedule.from_alpha(lambda t: torch.cos(0.5 * math.pi * t) ** 2),
]
#: alpha as the papers write it
ALPHA = [
    lambda t: 1 - t,
    lambda t: np.exp(np.log1p(-(1 - 1e-3) * t)),
    lambda t: 1 - np.cos(0.5 * np.pi * (1 - t)),
    lambda t: 1e-3 + (1 - 1e-3) * np.cos(0.5 * np.pi * t),
    lambda t: 1e-3 + (1 - 1e-3) * np.cos(0.5 * np.pi * t) ** 2,
    lambda t: 1 - t**3,
    lambda t: 1 - np.sqrt(t),
    lambda t: np.exp(-(1e-3 + t * (7.0 - 1e-3))),
    lambda t: np.exp(-(1e-4 ** (1 - t) * 5.0**t)),
    lambda t: np.cos(0.5 * np.pi * t) ** 2,
]
NAMES = [f"{type(schedule).__name__}{i}" for i, schedule in enumerate(SCHEDULES)]
each = pytest.mark.parametrize("schedule", SCHEDULES, ids=NAMES)


@pytest.mark.parametrize(("schedule", "alpha"), list(zip(SCHEDULES, ALPHA, strict=True)), ids=NAMES)
def test_formula(schedule, alpha) -> None:
    assert np.allclose(schedule.mask_prob(T), 1.0 - alpha(T), rtol=0, atol=2e-15)
    assert np.allclose(schedule.alpha(T), alpha(T), rtol=0, atol=2e-15)
    assert np.allclose(np.exp(schedule.log_mask_prob(T)), schedule.mask_prob(T), rtol=1e-14)
    inside = T[1:-1]
    assert np.allclose(schedule.sigma(inside), -np.log(alpha(inside)), rtol=1e-11, atol=1e-15)
    assert (np.diff(schedule.mask_prob(T)) > 0).all()


@each
def test_inverse(schedule) -> None:
    """To 1e-12, but where m is so flat that its own last digit says less about t."""
    m = schedule.mask_prob(T)
    slope = np.gradient(m, T)
    digit = 4 * np.spacing(1.0) / slope if isinstance(schedule, FromAlpha) else np.spacing(m) / slope
    error = np.abs(schedule.inverse(m) - T)
    assert (error <= 1e-12 + 2 * digit)[1:-1].all()
    # at a flat end t is known to the root of a digit only, m as well as ever
    assert np.allclose(schedule.mask_prob(schedule.inverse(m)), m, rtol=1e-14, atol=3e-16)


@each
def test_small_times_keep_their_digits(schedule) -> None:
    """Where 1 - alpha has no digits left: relative accuracy of t down to 1e-12."""
    small = np.logspace(-12, -2, 40)
    if schedule.mask_prob(0.0) > 0 or isinstance(schedule, FromAlpha):
        return
    assert np.allclose(schedule.inverse(schedule.mask_prob(small)), small, rtol=1e-12, atol=0)
    m = schedule.mask_prob(small[:20])
    series = m + m**2 / 2 + m**3 / 3 + m**4 / 4
    assert np.allclose(schedule.sigma(small[:20])[m < 1e-3], series[m < 1e-3], rtol=1e-12, atol=0)


@each
def test_torch_as_numpy(schedule) -> None:
    t = torch.from_numpy(T)
    for name in ("mask_prob", "inverse", "log_mask_prob", "sigma"):
        ours, theirs = getattr(schedule, name)(t), getattr(schedule, name)(T)
        assert ours.dtype == torch.float64
        assert np.allclose(ours.numpy(), theirs, rtol=1e-13, atol=1e-15)
    half = schedule.mask_prob(torch.tensor(0.5, dtype=torch.float32))
    assert half.dtype == torch.float64 and half.shape == ()
    assert float(half) == pytest.approx(float(schedule.mask_prob(0.5)), abs=1e-15)


def test_probabilities_outside_the_range_of_the_schedule() -> None:
    schedule = Geometric(1e-2, 3.0)
    assert schedule.inverse(float(schedule.mask_prob(0.0)) / 2) == 0.0
    assert schedule.inverse(1.0) == 1.0


def test_conditioning() -> None:
    schedule = MaskSchedule.from_name("cosine")
    m = torch.tensor([0.1, 0.7], dtype=torch.float64)
    assert torch.equal(schedule.conditioning(m, "mask_prob"), m)
    assert torch.allclose(schedule.conditioning(m, "sigma"), -torch.log(1 - m))
    assert torch.allclose(schedule.conditioning(m, "t"), schedule.inverse(m))
    with pytest.raises(ValueError, match="`kind` must be"):
        schedule.conditioning(m, "none")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskSchedule.from_name("linear"), "`name` must be one of cosine, "),
        (lambda: MaskSchedule.from_name("loglinear", eps=1.0), r"`eps` must be in \[0, 1\)"),
        (lambda: MaskSchedule.from_name("polynomial", r=0.0), "`r` must be finite and positive"),
        (lambda: MaskSchedule.from_name("geometric", sigma_min=2.0, sigma_max=1.0), "`sigma_max` must be"),
        (lambda: MaskSchedule.from_alpha(lambda t: t), "`alpha` must decrease"),
        (lambda: MaskSchedule.from_alpha(lambda t: 1.5 - t), r"`alpha` must stay in \[0, 1\]"),
        (lambda: MaskSchedule.from_alpha(lambda t: t.sum()), "one value for each time"),
        (lambda: SCHEDULES[0].mask_prob(1.5), r"`t` must be in \[0, 1\]"),
        (lambda: SCHEDULES[0].inverse(-0.1), r"`mask_prob` must be in \[0, 1\]"),
        (lambda: SCHEDULES[0].inverse(float("nan")), r"`mask_prob` must be in \[0, 1\]"),
    ],
)
def test_errors(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_types() -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        MaskSchedule.from_name("cosine", eps=1e-3)
    with pytest.raises(TypeError, match="`eps` must be a number"):
        MaskSchedule.from_name("loglinear", eps="small")
    with pytest.raises(TypeError, match="`alpha` must be callable"):
        MaskSchedule.from_alpha(0.5)
    with pytest.raises(TypeError, match="`t` must be a floating-point tensor"):
        SCHEDULES[0].mask_prob(torch.tensor(1))


def test_hitting_times_of_a_schedule() -> None:
    """Rank k of L hits has mask probability m(1) Beta(L - k, k + 1): Kolmogorov-Smirnov, n = 1e5."""
    schedule, length, n = MaskSchedule.from_name("cosine_mdlm"), 4, 100_000
    hits = ops.first_hitting_times(torch.ones(n, length, dtype=torch.bool), schedule=schedule, seed=5)
    m = schedule.mask_prob(hits.times) / float(schedule.mask_prob(1.0))
    for k in range(length):
        assert stats.kstest(m[:, k].numpy(), stats.beta(length - k, k + 1).cdf).pvalue > 1e-4
