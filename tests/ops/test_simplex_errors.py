"""Wrong arguments of the encodings: wrappers and level tables name them, raw operators refuse them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from fastdiff_ops import ops
from ops.encode_cases import BF16, F16, F32, F64, LATTICES, LEVELS, SUFFIXES, WRAPPERS, some_call

S, G = ops.SimplexLevels, ops.GridLevels

LEVEL_ERRORS = [
    ({"n": 0}, ValueError, r"`n` must be in \[1, 8\], got 0"),
    ({"n": 9}, ValueError, "`n` must be in"),
    ({"n": 2.0}, TypeError, "`n` must be an int, got float"),
    ({"n": True}, TypeError, "`n` must be an int, got bool"),
    ({"n_levels": 0}, ValueError, r"`n_levels` must be in \[1, 32\], got 0"),
    ({"n_levels": 33, "per_level_scale": 1.0}, ValueError, "`n_levels` must be in"),
    ({"log2_hashmap_size": 0}, ValueError, r"`log2_hashmap_size` must be in \[1, 28\], got 0"),
    ({"log2_hashmap_size": 29}, ValueError, "`log2_hashmap_size` must be in"),
    ({"base_resolution": 0}, ValueError, "`base_resolution` must be >= 1, got 0"),
    ({"base_resolution": 1.5}, TypeError, "`base_resolution` must be an int"),
    ({"per_level_scale": 0}, ValueError, "`per_level_scale` must be finite and > 0, got 0"),
    ({"per_level_scale": -1.0}, ValueError, "`per_level_scale` must be"),
    ({"per_level_scale": float("nan")}, ValueError, "`per_level_scale` must be"),
    ({"per_level_scale": float("inf")}, ValueError, "`per_level_scale` must be"),
    ({"per_level_scale": "2"}, TypeError, "`per_level_scale` must be a number, got str"),
    ({"type": "Tiled"}, ValueError, "`type` must be one of Hash, Dense, got 'Tiled'"),
    ({"level_shift": "half"}, ValueError, "`level_shift` must be one of"),
    ({"n_levels": 30, "per_level_scale": 2.0}, ValueError, "level 1[56] the scale .* below 2\\^20"),
    ({"n": 8, "type": "Dense"}, ValueError, '`type` "Dense": level 0 would need .* more than 2\\^28'),
]


@pytest.mark.parametrize("lattice", LATTICES)
@pytest.mark.parametrize(("keys", "error", "message"), LEVEL_ERRORS, ids=lambda v: str(v)[:40])
def test_levels(lattice, keys, error, message):
    with pytest.raises(error, match=message):
        LEVELS[lattice](**({"n": 2} | keys))


def test_levels_of_one_kind():
    with pytest.raises(ValueError, match="`resolution_mode` must be one of axis, density, got 'volume'"):
        S(2, resolution_mode="volume")
    with pytest.raises(ValueError, match="`convention` must be one of plain, tiny-cuda-nn, got 'tcnn'"):
        G(2, convention="tcnn")
    with pytest.raises(ValueError, match='`level_shift` must be "none"'):
        G(2, convention="tiny-cuda-nn", level_shift="quasi")
    with pytest.raises(ValueError, match="`base_resolution` must give every level two"):
        G(2, convention="tiny-cuda-nn", base_resolution=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        S(2).n = 3
    # the skewed lattice is what must fit: sqrt(n + 1) times finer
    limit = {"n_levels": 1, "n": 3}
    S(**limit, base_resolution=(1 << 19) - 1)
    G(**limit, base_resolution=(1 << 20) - 1)
    for kind, resolution in ((S, 1 << 19), (G, 1 << 20)):
        with pytest.raises(ValueError, match="below 2\\^20"):
            kind(**limit, base_resolution=resolution)
    S(2, 5, per_level_scale=1.0)  # legal
    with pytest.raises(ValueError, match="less than 2\\^31"):
        S(2, 9, type="Dense", base_resolution=12000, per_level_scale=1.0)


X, LEVEL_KEYS = torch.zeros(4, 2), {"n_levels": 2, "log2_hashmap_size": 8, "base_resolution": 4}
WRONG = [
    ("x", [[0.0, 0.0]], TypeError, "`x` must be a Tensor, got list"),
    ("x", X.half(), TypeError, "`x` must be float32 or float64 .*, got torch.float16"),
    ("x", X.bfloat16(), TypeError, "`x` must be float32 or float64"),
    ("x", X.long(), TypeError, "`x` must be float32 or float64 .*, got torch.int64"),
    ("x", X[:, :1], ValueError, r"`x` must have shape \[N, 2\], got \(4, 1\)"),
    ("x", X[0], ValueError, r"`x` must have shape \[N, 2\], got \(2,\)"),
    ("x", X[None], ValueError, "`x` must have shape"),
    ("x", X.to("meta"), ValueError, "`table` must be on the device of `x`, meta, got cpu"),
    ("table", None, TypeError, "`table` must be a Tensor, got NoneType"),
    (
        "table",
        torch.int32,
        TypeError,
        "`table` must be float16, bfloat16, float32 or float64, got torch.int32",
    ),
    ("table", (-1, 2), ValueError, r"`table` must have shape \[\d+, 1, 2, 4 or 8\], got"),
    ("table", (0, 3), ValueError, "`table` must have shape"),
    ("table", (0, 16), ValueError, "`table` must have shape"),
    ("table", (8, 2), ValueError, "`table` must have shape"),
    ("levels", None, TypeError, "`levels` must be (Simplex|Grid)Levels, got NoneType"),
    ("bounds", "wrap", ValueError, "`bounds` must be one of clamp, extend, got 'wrap'"),
    ("bounds", 0, ValueError, "`bounds` must be one of clamp, extend, got 0"),
    ("out_dtype", torch.int32, TypeError, "`out_dtype` must be float16, .*, got torch.int32"),
    ("max_level", 3, ValueError, r"`max_level` must be in \[0, 2\], got 3"),
    ("max_level", -1, ValueError, r"`max_level` must be in \[0, 2\], got -1"),
    ("max_level", 1.0, TypeError, "`max_level` must be an int, got float"),
    ("deterministic", 1, TypeError, "`deterministic` must be a bool or None, got int"),
]


@pytest.mark.parametrize("lattice", LATTICES)
@pytest.mark.parametrize(("name", "value", "error", "message"), WRONG, ids=lambda v: str(v)[:30])
def test_wrappers(lattice, name, value, error, message):
    levels = LEVELS[lattice](2, **LEVEL_KEYS)
    if name == "table" and isinstance(value, tuple):
        value = torch.zeros(levels.n_entries + value[0], value[1])
    elif isinstance(value, torch.dtype) and name == "table":
        value = torch.zeros(levels.n_entries, 2, dtype=value)
    call = {"x": X, "table": torch.zeros(levels.n_entries, 2), "levels": levels}
    WRAPPERS[lattice](**call)
    with pytest.raises(error, match=message):
        WRAPPERS[lattice](**(call | {name: value}))


def test_levels_of_the_other_lattice():
    with pytest.raises(TypeError, match="`levels` must be SimplexLevels, got GridLevels"):
        ops.simplex_encode(X, torch.zeros(G(2, 1).n_entries, 2), G(2, 1))


@pytest.mark.emulated
@pytest.mark.parametrize("lattice", LATTICES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_raw_operators(backend, lattice, suffix):
    """What could read or write out of range raises RuntimeError, on every backend."""
    call = some_call(lattice, 2, dtype=F32, points=4, device=backend.device)
    call.run(suffix)
    dense = some_call(lattice, 2, dtype=F32, points=4, device=backend.device).levels.layout

    def layout(index: int, value: int) -> dict[str, object]:
        numbers = list(dense)
        numbers[index] = value
        levels = dataclasses.replace(call.levels)
        object.__setattr__(levels, "layout", tuple(numbers))
        return {"levels": levels}

    def shifted(by: float) -> dict[str, object]:
        levels = dataclasses.replace(call.levels)
        object.__setattr__(levels, "shifts", tuple(s + by for s in call.levels.shifts))
        return {"levels": levels}

    last = len(dense) - 6
    wrong = [
        {"x": call.x[:, :0]},
        {"x": call.x.half()},
        {"x": call.x[0]},
        layout(0, -8),
        layout(last, dense[last] + 8),
        layout(1, dense[-1] * 100),
        layout(last + 5, 4 * dense[-1] + 3),
        layout(3, 1),
        layout(3, 1000),
        shifted(50.0),
        shifted(-50.0),
        {"switches": (2, 3, False)},
        {"switches": (0, 4, False)},
        {"switches": (0, -1, False)},
    ]
    if "u" in suffix or suffix == "_jvp":
        wrong.append({"u": call.u[:3]})
    if "vjp" in suffix:
        wrong += [{"grad": call.grad[:3]}, {"grad": call.grad[:, :-1]}, {"grad": call.grad.long()}]
    if "table" not in suffix:
        wrong += [
            {"table": call.table[:-8]},
            {"table": call.table[:, :1].expand(-1, 3)},
            {"table": call.table.long()},
        ]
    for change in wrong:
        with pytest.raises(RuntimeError):
            call._replace(**change).run(suffix)


@pytest.mark.parametrize("dtype", [F16, BF16, F32, F64], ids=str)
def test_empty_batches_have_gradients(dtype):
    for lattice in LATTICES:
        call = some_call(lattice, 3, points=0, dtype=F32, table_dtype=dtype)
        x, table = call.x.requires_grad_(), call.table.requires_grad_()
        result = WRAPPERS[lattice](x, table, call.levels)
        assert result.shape == (0, 6) and result.dtype == dtype
        result.sum().backward()
        assert x.grad.shape == (0, 3) and (table.grad == 0).all()
