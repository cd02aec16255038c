"""Solver tables as JSON. Floats are written in hexadecimal, so that a round trip is exact."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from fastdiff_ops.schedules import NoiseSchedule

from .table import Array, SolverTable

FORMAT = "fastdiff_ops.SolverTable"
VERSION = 1
_ARRAYS = ("t", "t_next", "t_eval", "c_in", "rows", "jump", "conv", "elem")


def to_json(table: SolverTable) -> str:
    """See `SolverTable.to_json`."""
    description: dict[str, Any] = {"format": FORMAT, "version": VERSION, "name": table.name}
    description["schedule"] = table.schedule.to_dict()
    description["options"] = dict(table.options)
    for name in ("prediction_type", "n_hist", "n_store"):
        description[name] = getattr(table, name)
    for name in ("target", "anchor", "elem_map"):
        description[name] = list(getattr(table, name))
    description.update({name: _write(getattr(table, name)) for name in _ARRAYS})
    return json.dumps(description)


def from_json(text: str) -> SolverTable:
    """See `SolverTable.from_json`."""
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"`text` is no JSON: {error}") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise ValueError(f"`text` must be JSON with format {FORMAT!r}")
    if (version := content.pop("version", None)) != VERSION:
        raise ValueError(f"`text` has version {version}, this library reads version {VERSION}")
    try:
        content["schedule"] = NoiseSchedule.from_dict(content["schedule"])
        for name in ("target", "anchor", "elem_map"):
            content[name] = tuple(content[name])
        content.update({name: _read(content[name]) for name in _ARRAYS})
        return SolverTable(**content)
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"`text` is no complete table: {error}") from error


def _write(array: Array | None) -> dict[str, Any] | None:
    if array is None:
        return None
    return {"shape": list(array.shape), "values": [value.hex() for value in array.ravel().tolist()]}


def _read(array: dict[str, Any] | None) -> Array | None:
    if array is None:
        return None
    values: Array = np.array([float.fromhex(value) for value in array["values"]], dtype=np.float64)
    values.shape = tuple(array["shape"])
    return values
