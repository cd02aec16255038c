"""Lengths of edges in float64, for every metric that the search knows."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

METRICS: Final = ("euclidean", "euc_2d", "ceil_2d", "man_2d", "max_2d", "att", "geo")
EXPLICIT: Final = "explicit"
_GEO_PI: Final = 3.141592  # TSPLIB's formulas use this value
_EARTH_RADIUS: Final = 6378.388  # km


def check_metric(metric: str, *, explicit: bool = False) -> str:
    """Return the name of a metric in lower case.

    Raises
    ------
    TypeError, ValueError
        If it is no str, or the name of no metric.
    """
    if not isinstance(metric, str):
        raise TypeError(f"`metric` must be a str, got {type(metric).__name__}")
    known = (*METRICS, EXPLICIT) if explicit else METRICS
    if metric.lower() not in known:
        raise ValueError(f"`metric` must be one of {', '.join(known)}, got {metric!r}")
    return metric.lower()


def edge_lengths(p: Tensor, q: Tensor, metric: str = "euclidean") -> Tensor:
    """Return the distances between two sets of points, as if they belonged to different cities.

    Parameters
    ----------
    p, q : float64 Tensor [..., 2]
        In the caller's units; for `geo` latitude and longitude as degrees.minutes.
    metric : str
        `euclidean`, or TSPLIB's `euc_2d`, `ceil_2d`, `man_2d`, `max_2d`, `att`, `geo`, whose values are whole
        numbers (Reinelt, "TSPLIB 95", section 2).

    Returns
    -------
    float64 Tensor [...]

    Examples
    --------
    >>> a, b = torch.tensor([0.0, 0.0], dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64)
    >>> [round(float(edge_lengths(a, b, name)), 3) for name in METRICS]
    [2.236, 2.0, 3.0, 3.0, 2.0, 1.0, 249.0]
    """
    if metric == "geo":
        return _geo(p, q)
    delta = (p - q).abs()
    if metric == "man_2d":
        return _nearest(delta.sum(-1))
    if metric == "max_2d":
        return _nearest(delta).amax(-1)
    distance = torch.hypot(delta[..., 0], delta[..., 1])
    if metric == "euc_2d":
        return _nearest(distance)
    if metric == "ceil_2d":
        return distance.ceil()
    if metric == "att":
        r = ((delta * delta).sum(-1) / 10).sqrt()
        nearest = _nearest(r)
        return nearest + (nearest < r)
    return distance


def _nearest(x: Tensor) -> Tensor:
    return (x + 0.5).floor()


def _geo(p: Tensor, q: Tensor) -> Tensor:
    (lat, lon), (lat_q, lon_q) = _radians(p).unbind(-1), _radians(q).unbind(-1)
    q1, q2, q3 = (lon - lon_q).cos(), (lat - lat_q).cos(), (lat + lat_q).cos()
    cosine = (0.5 * ((1 + q1) * q2 - (1 - q1) * q3)).clamp(-1, 1)
    return (_EARTH_RADIUS * cosine.acos() + 1).trunc()


def _radians(degrees_minutes: Tensor) -> Tensor:
    degrees = degrees_minutes.trunc()
    return _GEO_PI * (degrees + 5 * (degrees_minutes - degrees) / 3) / 180


def largest_length(points: Tensor, metric: str) -> float:
    """Return a bound on the distance between any two of some points [..., 2], in the metric's units."""
    if metric == "geo":
        return _EARTH_RADIUS * math.pi + 1
    if points.numel() == 0:
        return 0.0
    flat = points.reshape(-1, 2)
    width, height = (flat.amax(0) - flat.amin(0)).tolist()
    return float(width + height + 1)
