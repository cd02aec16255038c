"""Noise schedules (Gaussian paths), prediction-type conversion, posteriors and time-step spacings."""

from .base import PREDICTION_TYPES, NoiseSchedule
from .continuous import FlowMatching, VPCosine, VPLinear
from .edm import EDM, VE

__all__ = ["EDM", "PREDICTION_TYPES", "VE", "FlowMatching", "NoiseSchedule", "VPCosine", "VPLinear"]
