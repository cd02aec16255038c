"""tiny-cuda-nn's configuration keys for grid encodings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..ops._levels import check_int

# The numbers are that library's defaults.
_NUMBERS: dict[str, Any] = {
    "n_levels": 16,
    "n_features_per_level": 2,
    "log2_hashmap_size": 19,
    "base_resolution": 16,
}
_SCALE = 2.0
_KEYS = {
    "otype",
    "type",
    "lattice",
    "n_features",
    "per_level_scale",
    "finest_resolution",
    "interpolation",
    "hash",
    "stochastic_interpolation",
    *_NUMBERS,
}
_TYPES = {"HashGrid": "Hash", "DenseGrid": "Dense", "TiledGrid": "Tiled"}


def read_config(config: Mapping[str, Any], lattice: str) -> dict[str, Any]:
    """Return constructor arguments for a configuration.

    Parameters
    ----------
    config : mapping
        As in tiny-cuda-nn's JSON files, and `lattice` ("simplex" or "cubic") and `finest_resolution`.
    lattice : {"simplex", "cubic"}
        What the caller builds.

    Raises
    ------
    ValueError, TypeError
        If a key is unknown or a value is not supported.
    """
    if not isinstance(config, Mapping):
        raise TypeError(f"`config` must be a mapping, got {type(config).__name__}")
    unknown = sorted(set(map(str, config)) - _KEYS)
    if unknown:
        raise ValueError(f"unknown configuration key {unknown[0]!r}; known: {', '.join(sorted(_KEYS))}")
    otype = config.get("otype", "SimplexGrid" if lattice == "simplex" else "HashGrid")
    if otype not in ("Grid", "SimplexGrid", *_TYPES):
        raise ValueError(f'`otype` must be "SimplexGrid", "HashGrid", "Grid" or "DenseGrid", got {otype!r}')
    kind = config.get("type", _TYPES.get(otype, "Hash"))
    if kind not in ("Hash", "Dense"):
        raise ValueError(f'`type` must be "Hash" or "Dense", got {kind!r}')
    named = config.get("lattice", "simplex" if otype == "SimplexGrid" else "cubic")
    if named != lattice:
        raise ValueError(f"this configuration is of a {named!r} lattice, a {lattice!r} one is wanted")
    if config.get("hash", "CoherentPrime") != "CoherentPrime":
        raise ValueError(f'`hash` must be "CoherentPrime", got {config["hash"]!r}')
    if config.get("stochastic_interpolation", False) is not False:
        raise ValueError("`stochastic_interpolation` must be false")
    found = {key: config.get(key, default) for key, default in _NUMBERS.items()}
    if "n_features" in config:
        if "n_levels" in config:
            raise ValueError("`n_features` and `n_levels` exclude each other")
        total, per_level = config["n_features"], found["n_features_per_level"]
        check_int("n_features_per_level", per_level, 1, None)
        check_int("n_features", total, 1, None)
        if total % per_level:
            raise ValueError(f"`n_features` must be a multiple of {per_level}, got {total}")
        found["n_levels"] = total // per_level
    if "finest_resolution" in config:
        found["finest_resolution"] = config["finest_resolution"]
        if "per_level_scale" in config:
            found["per_level_scale"] = config["per_level_scale"]
    else:
        found["per_level_scale"] = config.get("per_level_scale", _SCALE)
    return found | {"type": kind, "interpolation": config.get("interpolation", "Linear")}
