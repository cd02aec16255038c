"""The schedules that the tests of this folder run through."""

from __future__ import annotations

import numpy as np
import pytest
from fastdiff_ops.schedules import EDM, VE, Discrete, FlowMatching, NoiseSchedule, VPCosine, VPLinear

TABLES = {
    "linear-dpm": Discrete.from_table("linear"),
    "linear-diffusers": Discrete.from_table("linear", reading="diffusers"),
    "sd-dpm": Discrete.from_table("scaled_linear"),
    "sd-diffusers": Discrete.from_table("scaled_linear", reading="diffusers"),
    "cosine-dpm": Discrete.from_table("squaredcos_cap_v2"),
    "cosine-diffusers": Discrete.from_table("squaredcos_cap_v2", reading="diffusers"),
    "zero-snr": Discrete.from_table("scaled_linear", zero_terminal_snr=True, reading="diffusers"),
    "short": Discrete([0.9, 0.4], "diffusers"),
}
SCHEDULES: dict[str, NoiseSchedule] = {
    "vp_linear": VPLinear(),
    "vp_linear-flat": VPLinear(5.0, 5.0),
    "vp_cosine": VPCosine(),
    "edm": EDM(),
    "ve": VE(0.01, 50.0),
    "flow": FlowMatching(),
    "flow-shift3": FlowMatching(3.0),
    "flow-shift.5": FlowMatching(0.5),
    **TABLES,
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def inner_times(schedule: NoiseSchedule, count: int = 501) -> np.ndarray:
    """Times strictly between clean data and the start, dense near both ends."""
    ramp = (np.arange(count) + 0.5) / count
    ends = np.concatenate([1e-6 * (ramp + 0.01), ramp, 1.0 - 1e-6 * (ramp + 0.01)])
    return schedule.t_data + ends * (schedule.T - schedule.t_data)
