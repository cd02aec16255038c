"""What a schedule refuses, and how it says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastdiff_ops.schedules import EDM, VE, Discrete, FlowMatching, NoiseSchedule, VPCosine, VPLinear
from schedules.cases import TABLES

BETAS = np.linspace(1e-4, 0.02, 10)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: VPLinear(-0.1), ValueError, "`beta_min` must be finite and positive"),
        (lambda: VPLinear(0.1, float("nan")), ValueError, "`beta_max`"),
        (lambda: VPLinear(2.0, 1.0), ValueError, "`beta_max` must be at least"),
        (lambda: VPLinear("0.1"), TypeError, "`beta_min` must be a number"),
        (lambda: VPLinear(True), TypeError, "`beta_min`"),
        (lambda: VPCosine(0.0), ValueError, "`c`"),
        (lambda: VE(1.0, 1.0), ValueError, "`sigma_max` must exceed"),
        (lambda: VE(0.0, 1.0), ValueError, "`sigma_min`"),
        (lambda: EDM(sigma_data=float("inf")), ValueError, "`sigma_data`"),
        (lambda: FlowMatching(0.0), ValueError, "`shift`"),
        (lambda: Discrete([]), ValueError, "`alphas_cumprod` must be 1-D with at least 2"),
        (lambda: Discrete([[0.9, 0.5]]), ValueError, "`alphas_cumprod` must be 1-D"),
        (lambda: Discrete([0.9, 0.9]), ValueError, "must decrease strictly"),
        (lambda: Discrete([0.5, 0.9]), ValueError, "must decrease strictly"),
        (lambda: Discrete([0.9, float("nan")]), ValueError, "must decrease strictly"),
        (lambda: Discrete([1.0, 0.5]), ValueError, "must decrease strictly"),
        (lambda: Discrete([0.9, -0.1]), ValueError, "must decrease strictly"),
        (lambda: Discrete([0.9, 0.0]), ValueError, "may end in 0 only with"),
        (lambda: Discrete(["a", "b"]), TypeError, "`alphas_cumprod` must be real numbers"),
        (lambda: Discrete([0.9, 0.5], reading="ddim"), ValueError, "`reading` must be one of"),
        (lambda: Discrete.from_betas([-0.1, 0.2]), ValueError, "`betas` must be in"),
        (lambda: Discrete.from_betas([0.1, float("nan")]), ValueError, "`betas` must be in"),
        (lambda: Discrete.from_betas([]), ValueError, "`betas` must be 1-D"),
        (lambda: Discrete.from_table("cosine"), ValueError, "`name` must be one of.*'squaredcos_cap_v2'"),
        (lambda: Discrete.from_table("linear", 1), ValueError, "`num_train_timesteps` must be at least 2"),
        (lambda: Discrete.from_table("linear", 10.0), TypeError, "`num_train_timesteps` must be an int"),
        (lambda: Discrete.from_table("linear", 10, 0.2, 0.1), ValueError, "`beta_start` <= `beta_end`"),
        (lambda: Discrete.from_table("squaredcos_cap_v2", 10, 0.1), ValueError, "no meaning"),
        (lambda: Discrete.from_betas(BETAS).clip(9.0), ValueError, "`lambda_min`"),
        (
            lambda: NoiseSchedule.from_dict({"kind": "sinusoidal"}),
            ValueError,
            "`kind` must be one of.*'vp_linear'",
        ),
        (lambda: NoiseSchedule.from_dict({"kind": "flow", "skew": 1}), ValueError, r"\['skew'\]"),
    ],
)
def test_bad_parameters(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("schedule", "t"),
    [
        (VPLinear(), 1.5),
        (VPLinear(), 500),
        (VPLinear(), -1e-3),
        (VPLinear(), float("nan")),
        (VPLinear(), [0.5, float("nan")]),
        (VPCosine(), 1.1),
        (FlowMatching(), 1.01),
        (VE(), -1.0),
        (TABLES["sd-diffusers"], 1000),
        (TABLES["sd-diffusers"], -1.5),
        (TABLES["sd-dpm"], -0.1),
    ],
)
def test_times_outside_the_domain(schedule, t):
    with pytest.raises(ValueError, match=r"`t` must be in \["):
        schedule.alpha(t)


@pytest.mark.parametrize(
    "t", ["0.5", None, True, 0.5j, torch.tensor(1), torch.tensor(True), torch.tensor(0.5j)]
)
def test_times_of_wrong_type(t):
    with pytest.raises(TypeError, match="`t` must be"):
        VPLinear().alpha(t)


def test_integer_tensors_are_positions_in_an_index_timed_table():
    index = torch.tensor([0, 999])
    torch.testing.assert_close(
        TABLES["sd-diffusers"].sigma(index), TABLES["sd-diffusers"].sigma(index.double())
    )
    with pytest.raises(TypeError, match="`t` must be"):
        TABLES["sd-dpm"].sigma(index)
    with pytest.raises(TypeError, match="`t` must be"):
        TABLES["sd-diffusers"].sigma(torch.tensor([True]))


@pytest.mark.parametrize("lam", [-20.0, float("nan"), -np.inf, [0.0, -20.0]])
def test_lambda_outside_the_range(lam):
    with pytest.raises(ValueError, match="`lam` is below the range"):
        VPLinear().inv_lam(lam)
