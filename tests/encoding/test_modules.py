"""Encodings as modules: initial values, configuration keys, state, shapes, levels in use."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from fastdiff_ops import encoding, ops
from fastdiff_ops.encoding import GridEncoding, SimplexEncoding

BOTH = pytest.mark.parametrize("kind", [SimplexEncoding, GridEncoding], ids=["simplex", "grid"])
KEYS = {"n_levels": 4, "log2_hashmap_size": 9, "base_resolution": 4, "seed": 0}


@BOTH
def test_it_is_the_operator(kind):
    module = kind(3, n_features_per_level=4, bounds="extend", **KEYS)
    x = torch.rand(2, 5, 3) * 2
    encode = ops.simplex_encode if kind is SimplexEncoding else ops.grid_encode
    wanted = encode(x.reshape(10, 3), module.table, module.levels, bounds="extend")
    assert torch.equal(module(x), wanted.reshape(2, 5, 16))
    assert module(x[0, 0]).shape == (16,) and module(x[:0]).shape == (0, 5, 16)
    assert (module.n_input_dims, module.n_output_dims) == (3, 16)
    assert torch.equal(module(x, 2)[..., :8], module(x)[..., :8]) and (module(x, 2)[..., 8:] == 0).all()
    assert module(x, out_dtype=torch.float64).dtype == torch.float64


@BOTH
def test_initial_values(kind):
    """U(-1e-4, 1e-4) from the seed alone, whatever the dtype; Kolmogorov's distance at 1e-3 false alarms."""
    table = kind(3, **KEYS).table.detach()
    assert torch.equal(table, kind(3, **KEYS).table)
    assert not torch.equal(table, kind(3, **(KEYS | {"seed": 1})).table)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert torch.equal(kind(3, dtype=dtype, **KEYS).table, table.to(dtype))
    values = np.sort(table.double().numpy().ravel() / 2e-4 + 0.5)
    assert values[0] >= 0 and values[-1] <= 1
    distance = np.abs(values - (np.arange(len(values)) + 0.5) / len(values)).max()
    assert distance < 1.95 / np.sqrt(len(values))
    torch.manual_seed(5)
    a = kind(2, **(KEYS | {"seed": None})).table
    torch.manual_seed(5)
    assert torch.equal(a, kind(2, **(KEYS | {"seed": None})).table)
    module = kind(3, **KEYS)
    module.reset_parameters(seed=1)
    assert torch.equal(module.table, kind(3, **(KEYS | {"seed": 1})).table)


@BOTH
def test_state(kind):
    """One parameter, `table`; copies, pickles and checkpoints compute the same."""
    module, x = kind(3, **KEYS), torch.rand(7, 3)
    assert list(module.state_dict()) == ["table"]
    assert [name for name, _ in module.named_parameters()] == ["table"]
    other = kind(3, **(KEYS | {"seed": 9}))
    other.load_state_dict(module.state_dict())
    for twin in (other, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), module(x)) and twin.levels == module.levels
    with pytest.raises(RuntimeError, match="size mismatch"):
        kind(2, **KEYS).load_state_dict(module.state_dict())


@BOTH
def test_meta_device(kind):
    module = kind(3, device="meta", **KEYS)
    assert module.table.is_meta and module(torch.rand(5, 3, device="meta")).shape == (5, 8)
    module = module.to_empty(device="cpu")
    module.reset_parameters(seed=0)
    assert torch.equal(module.table, kind(3, **KEYS).table)


@BOTH
def test_changes_of_type(kind):
    module = kind(3, **KEYS)
    x = torch.rand(5, 3)
    wanted = module(x)
    assert torch.equal(module.half()(x), kind(3, dtype=torch.float16, **KEYS)(x))
    torch.testing.assert_close(module(x).float(), wanted, rtol=2e-3, atol=1e-7)


@BOTH
def test_what_is_shown(kind):
    module = kind(3, **KEYS)
    text = repr(module)
    assert "3 -> 8" in text and "n_levels=4" in text and f"{module.levels.n_entries} entries" in text
    assert f"{sum(module.levels.dense)} of 4 levels dense" in text
    counts = module.vertex_count()
    for count, size, dense in zip(counts, module.levels.sizes, module.levels.dense, strict=True):
        assert (count <= size < count + 8) if dense else count > size == 512


# ---- configuration

TCNN = {
    "otype": "HashGrid",
    "n_levels": 8,
    "n_features_per_level": 4,
    "log2_hashmap_size": 10,
    "base_resolution": 6,
    "per_level_scale": 1.4,
    "interpolation": "Linear",
}


def test_keys_of_tiny_cuda_nn():
    module = GridEncoding.from_config(3, TCNN, seed=1)
    assert module.levels == ops.GridLevels(3, 8, 10, 6, 1.4) and module.n_features_per_level == 4
    module = SimplexEncoding.from_config(3, TCNN | {"lattice": "simplex"}, bounds="extend")
    assert module.levels == ops.SimplexLevels(3, 8, 10, 6, 1.4) and module.bounds == "extend"
    default = SimplexEncoding.from_config(2, {"log2_hashmap_size": 12})
    assert default.levels == ops.SimplexLevels(2, 16, 12, 16, 2.0)  # that library's scale
    assert SimplexEncoding(2, log2_hashmap_size=12).levels.per_level_scale == 1.5
    dense = GridEncoding.from_config(2, {"otype": "DenseGrid", "n_levels": 3})
    assert dense.levels.type == "Dense" and all(dense.levels.dense)
    assert SimplexEncoding.from_config(
        2, {"otype": "SimplexGrid", "type": "Dense", "n_levels": 2}
    ).levels.type
    by_features = GridEncoding.from_config(2, {"otype": "Grid", "n_features": 12, "n_features_per_level": 4})
    assert by_features.levels.n_levels == 3


def test_finest_resolution():
    for kind in (SimplexEncoding, GridEncoding):
        module = kind(2, 5, base_resolution=16, finest_resolution=256, log2_hashmap_size=8)
        assert module.levels.scales[-1] == pytest.approx(256, rel=1e-12)
        assert module.levels.per_level_scale == pytest.approx(2.0)
    config = {"finest_resolution": 64, "n_levels": 3}
    assert GridEncoding.from_config(2, config).levels.scales == pytest.approx((16.0, 32.0, 64.0))


CONFIG_ERRORS = [
    ({"n_level": 3}, ValueError, "unknown configuration key 'n_level'; known: .*n_levels"),
    ({"otype": "Frequency"}, ValueError, "`otype` must be"),
    ({"otype": "TiledGrid"}, ValueError, '`type` must be "Hash" or "Dense", got \'Tiled\''),
    ({"type": "Tiled"}, ValueError, "`type` must be"),
    ({"hash": "Prime"}, ValueError, "`hash` must be \"CoherentPrime\", got 'Prime'"),
    ({"interpolation": "Smoothstep"}, ValueError, '`interpolation` must be "Linear"'),
    ({"stochastic_interpolation": True}, ValueError, "`stochastic_interpolation` must be false"),
    ({"n_features": 7}, ValueError, "`n_features` must be a multiple of 2, got 7"),
    ({"n_features": 8, "n_levels": 4}, ValueError, "`n_features` and `n_levels` exclude each other"),
    ({"n_features_per_level": 3}, ValueError, "`n_features_per_level` must be 1, 2, 4 or 8, got 3"),
    ({"n_features_per_level": 2.0}, TypeError, "`n_features_per_level` must be an int"),
    ({"n_levels": 99}, ValueError, "`n_levels` must be in"),
    ({"finest_resolution": 8}, ValueError, "`finest_resolution` must be finite and at least"),
    ({"finest_resolution": 64, "per_level_scale": 2.0}, ValueError, "exclude each other"),
    ({"finest_resolution": 64, "n_levels": 1}, ValueError, "`n_levels` must be in"),
    ({"finest_resolution": "64"}, TypeError, "`finest_resolution` must be a number"),
]


@BOTH
@pytest.mark.parametrize(("change", "error", "message"), CONFIG_ERRORS, ids=lambda v: str(v)[:30])
def test_bad_configurations(kind, change, error, message):
    with pytest.raises(error, match=message):
        kind.from_config(2, change)


def test_the_other_lattice_is_refused():
    with pytest.raises(ValueError, match="a 'cubic' lattice, a 'simplex' one is wanted"):
        SimplexEncoding.from_config(2, {"otype": "HashGrid"})
    with pytest.raises(ValueError, match="a 'simplex' lattice, a 'cubic' one is wanted"):
        GridEncoding.from_config(2, {"otype": "SimplexGrid"})
    with pytest.raises(TypeError, match="`config` must be a mapping, got list"):
        GridEncoding.from_config(2, [])


@BOTH
def test_bad_arguments(kind):
    for options, error, message in (
        ({"bounds": "wrap"}, ValueError, "`bounds` must be one of"),
        ({"interpolation": "Nearest"}, ValueError, "`interpolation` must be"),
        ({"dtype": torch.int32}, TypeError, "`dtype` must be float16"),
        ({"n_features_per_level": True}, TypeError, "`n_features_per_level` must be an int, got bool"),
        ({"per_level_scale": -1.0}, ValueError, "`per_level_scale` must be"),
        ({"n_levels": 30, "log2_hashmap_size": 28, "per_level_scale": 1.0, "base_resolution": 17000,
          "n_features_per_level": 8}, ValueError, "less than 2\\^31"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            kind(2, **options)
    module = kind(3, **KEYS)
    for x in (torch.rand(5, 2), torch.tensor(0.5)):
        with pytest.raises(ValueError, match=r"`x` must have shape \(\.\.\., 3\)"):
            module(x)
    with pytest.raises(TypeError, match="`x` must be float32 or float64"):
        module(torch.rand(5, 3).half())


def test_names():
    import fastdiff_ops

    assert fastdiff_ops.encoding is encoding
    assert set(encoding.__all__) <= set(dir(encoding))
