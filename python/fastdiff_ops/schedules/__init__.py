"""Noise schedules (Gaussian paths), prediction-type conversion, posteriors and time-step spacings."""

from .base import PREDICTION_TYPES, NoiseSchedule
from .betas import beta_table, rescale_zero_terminal_snr
from .continuous import FlowMatching, VPCosine, VPLinear
from .discrete import Discrete
from .edm import EDM, VE
from .spacings import timesteps

__all__ = [
    "EDM",
    "PREDICTION_TYPES",
    "VE",
    "Discrete",
    "FlowMatching",
    "NoiseSchedule",
    "VPCosine",
    "VPLinear",
    "beta_table",
    "rescale_zero_terminal_snr",
    "timesteps",
]
