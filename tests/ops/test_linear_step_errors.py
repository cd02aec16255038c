"""Wrong arguments: the wrappers name them, the raw operators never crash, the kernels never guess."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fastdiff_ops import ops
from ops.step_cases import F16, F32, F64, Case, random_case, raw, run, run_in_place, table
from torch import Tensor

STEP = torch.ops.fastdiff_ops.solver_step.default
STEP_ = torch.ops.fastdiff_ops.solver_step_.default

I64 = torch.int64


def good() -> Case:
    """Return a call with every argument, all of them right: B = 2, S = (3, 4), 2 outputs, 4 stored values."""
    options = {"n_outs": 2, "n_hist": 4, "anchor_mode": "row", "clip_mode": "dynamic", "per_sample": True}
    case = random_case(1, (2, 3, 4), elements=(10, 64), elem_shape=(4,), **options)
    case.options["rng"] = torch.tensor([1, 2])
    return case


def zeros(*shape: int, dtype: torch.dtype = F32, device: str = "cpu") -> Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


REVERSED = zeros(4, 3, 2).permute(2, 1, 0)

# argument, value, exception, text of the message
WRONG: list[tuple[str, Any, type[Exception], str]] = [
    ("x", 3.0, TypeError, "`x` must be a Tensor, got float"),
    (
        "x",
        zeros(2, 3, 4, dtype=I64),
        TypeError,
        "`x` must be float16, .* got torch.int64",
    ),
    ("x", zeros(2, 3, 4, dtype=torch.complex64), TypeError, "`x` must be"),
    ("x", zeros(), ValueError, "`x` must have 1 to 10 axes"),
    ("x", zeros(*[1] * 11), ValueError, "`x` must have 1 to 10 axes"),
    ("outs", None, TypeError, "`outs` must be a .*got NoneType"),
    ("outs", zeros(2, 3, 4), TypeError, "`outs` must be a .*got Tensor"),
    ("outs", [], ValueError, "`outs` must hold 1 to 4 tensors, got 0"),
    ("outs", [zeros(2, 3, 4)] * 5, ValueError, "`outs` must hold 1 to 4 tensors, got 5"),
    ("outs", [None, zeros(2, 3, 4)], TypeError, r"`outs\[0\]` must be a Tensor, got NoneType"),
    ("outs", [zeros(2, 3, 4), 1], TypeError, r"`outs\[1\]` must be a Tensor, got int"),
    (
        "outs",
        [zeros(2, 3, 4), zeros(2, 6, 4)],
        ValueError,
        r"`outs\[1\]` must have .* got \(2, 6, 4\)",
    ),
    ("outs", [zeros(2, 3, 4), zeros(2, 3, 4, dtype=F16)], TypeError, r"`outs\[1\]` must be torch.float32"),
    ("outs", [zeros(2, 3, 4, dtype=I64)] * 2, TypeError, r"`outs\[0\]` must be"),
    ("outs", [zeros(2, 3, 4, device="meta")] * 2, ValueError, r"`outs\[0\]` must be on the device of `x`"),
    ("coef", None, TypeError, "`coef` must be a Tensor"),
    ("coef", zeros(3, 1, 64), TypeError, "`coef` must be torch.float64, got torch.float32"),
    ("coef", zeros(1, 64, dtype=F64), ValueError, r"`coef` must have shape \[E, 1 or 2, 64\], got \(1, 64\)"),
    ("coef", zeros(3, 3, 64, dtype=F64), ValueError, "`coef` must have shape"),
    ("coef", zeros(3, 1, 60, dtype=F64), ValueError, "`coef` must have shape"),
    ("coef", zeros(3, 1, 64, dtype=F64, device="meta"), ValueError, "`coef` must be on the device of `x`"),
    ("step", 1, TypeError, "`step` must be a Tensor, got int"),
    ("step", torch.tensor([1]), ValueError, r"`step` must have shape \(\), got \(1,\)"),
    ("step", torch.tensor(1, dtype=torch.int32), TypeError, "`step` must be torch.int64"),
    ("step", torch.tensor(1, device="meta"), ValueError, "`step` must be on the device"),
    ("anchor", zeros(2, 3), ValueError, "`anchor` must have shape"),
    ("anchor", zeros(2, 3, 4, dtype=F64), TypeError, "`anchor` must be torch.float32, got torch.float64"),
    ("history", zeros(2, 3, 4), ValueError, r"`history` must have shape \[K, 2, 3, 4\] with 1 <= K <= 8"),
    ("history", zeros(9, 2, 3, 4), ValueError, "`history` must have shape"),
    ("history", zeros(0, 2, 3, 4), ValueError, "`history` must have shape"),
    ("history", zeros(4, 2, 3, 4, dtype=I64), TypeError, "`history` must be"),
    ("weights", None, ValueError, "`weights` must be given for 2 outputs"),
    ("weights", zeros(1, 2, 1, 2), TypeError, "`weights` must be torch.float64"),
    (
        "weights",
        zeros(2, 2, 1, 2, dtype=F64),
        ValueError,
        r"`weights` must .* \[1 or 3, 2, 1 or 2, 2\]",
    ),
    ("weights", zeros(1, 2, 3, 2, dtype=F64), ValueError, "`weights` must have shape"),
    ("weights", zeros(1, 1, 1, 2, dtype=F64), ValueError, "`weights` must have shape"),
    ("weights", zeros(1, 2, 1, 3, dtype=F64), ValueError, "`weights` must have shape"),
    ("weights", zeros(2, 2, dtype=F64), ValueError, "`weights` must have shape"),
    ("elem", None, ValueError, "`elem` and `elem_map` go together"),
    ("elem_map", None, ValueError, "`elem` and `elem_map` go together"),
    ("elem", zeros(1, 2, 4, dtype=F16), TypeError, "`elem` must be torch.float32 or torch.float64"),
    ("elem", zeros(2, 2, 4), ValueError, r"`elem` must have shape \[1 or 3, n <= 64, \*S'\]"),
    ("elem", zeros(1, 2, 5), ValueError, "`elem` must have shape"),
    ("elem", zeros(1, 2, 1, 3, 4), ValueError, "`elem` must have shape"),
    ("elem", zeros(2), ValueError, "`elem` must have shape"),
    ("elem", zeros(1, 65, 4), ValueError, "`elem` must have shape"),
    ("elem_map", torch.tensor([10]), ValueError, r"`elem_map` must have shape \(2,\), got \(1,\)"),
    ("elem_map", torch.tensor([10.0, 11.0]), TypeError, "`elem_map` must be torch.int64"),
    ("clip_scale", None, ValueError, "`clip_scale` must be given"),
    ("clip_scale", zeros(3), ValueError, "`clip_scale` must have shape"),
    ("clip_scale", zeros(2, dtype=F16), TypeError, "`clip_scale` must be"),
    ("noise", zeros(2, 3, 4, 1), ValueError, "`noise` must have shape"),
    ("noise", zeros(2, 3, 4, dtype=I64), TypeError, "`noise` must be"),
    ("rng", zeros(2), TypeError, "`rng` must be torch.int64"),
    ("rng", zeros(3, dtype=I64), ValueError, r"`rng` must have shape \[2\] or \[2, 3\], got \(3,\)"),
    ("rng", zeros(3, 3, dtype=I64), ValueError, "`rng` must have shape"),
    ("rng", 7, TypeError, "`rng` must be a Tensor, got int"),
    ("n_store", 3, ValueError, "`n_store` must be 0, 1 or 2, got 3"),
    ("n_store", -1, ValueError, "`n_store` must be 0, 1 or 2"),
    ("clip_mode", "hard", ValueError, "`clip_mode` must be one of none, static, dynamic, got 'hard'"),
    ("anchor_mode", "none", ValueError, "`anchor_mode` must be one of same, keep, row, got 'none'"),
]


@pytest.mark.parametrize(
    ("name", "value", "error", "message"), WRONG, ids=[f"{n}-{m[:40]}" for n, _, _, m in WRONG]
)
def test_wrappers_name_the_argument(name, value, error, message):
    case = good()
    bad = case.changed(**{name: value})
    with pytest.raises(error, match=message):
        run(bad)
    with pytest.raises(error, match=message):
        ops.solver_step_(bad.x, bad.outs, torch.empty_like(case.x), bad.coef, bad.step, **bad.options)


def in_place(case: Case, x_out: Tensor, model_in: Tensor | None = None, **options: Any) -> None:
    ops.solver_step_(
        case.x, case.outs, x_out, case.coef, case.step, model_in=model_in, **case.options | options
    )


WRONG_IN_PLACE: list[tuple[str, Callable[[Case], dict[str, Any]], type[Exception], str]] = [
    ("dtype", lambda c: {"x_out": zeros(2, 3, 4, dtype=F16)}, TypeError, "`x_out` must be torch.float32"),
    ("shape", lambda c: {"x_out": zeros(2, 12)}, ValueError, "`x_out` must have shape"),
    ("no tensor", lambda c: {"x_out": None}, TypeError, "`x_out` must be a Tensor"),
    (
        "order",
        lambda c: {"x_out": REVERSED},
        ValueError,
        "`x_out` .* memory order of `x`",
    ),
    ("is x", lambda c: {"x_out": c.x}, ValueError, "`x_out` is written and must not overlap `x`"),
    ("is out", lambda c: {"x_out": c.outs[1]}, ValueError, "`x_out` .* must not overlap `outs`"),
    ("is noise", lambda c: {"x_out": c.options["noise"]}, ValueError, "`x_out` .* must not overlap `noise`"),
    (
        "is anchor",
        lambda c: {"x_out": c.options["anchor"]},
        ValueError,
        "`x_out` .* overlap `anchor`",
    ),
    ("is a slot", lambda c: {"x_out": c.options["history"][1]}, ValueError, "`x_out` .* overlap `history`"),
    (
        "is a slot that is only read",
        lambda c: {"x_out": c.options["history"][1], "n_store": 0},
        ValueError,
        "`x_out` .* must not overlap `history`",
    ),
    ("row without anchor", lambda c: {"anchor": None}, ValueError, "`anchor` must be given"),
    ("anchor is x", lambda c: {"anchor": c.x}, ValueError, "`anchor` .* must not overlap `x`"),
    (
        "anchor order",
        lambda c: {"anchor": REVERSED},
        ValueError,
        "`anchor` .* memory order",
    ),
    (
        "no history",
        lambda c: {"history": None},
        ValueError,
        "`history` must have a multiple of",
    ),
    (
        "odd ring",
        lambda c: {"history": zeros(3, 2, 3, 4), "n_store": 2},
        ValueError,
        "`history` must have a multiple of `n_store` = 2 slots, got 3",
    ),
    (
        "ring order",
        lambda c: {"history": zeros(2, 4, 3, 4).transpose(0, 1)},
        ValueError,
        "`history` .* memory",
    ),
    (
        "model_in shape",
        lambda c: {"model_in": zeros(3, 3, 4)},
        ValueError,
        r"`model_in` must .* \[R \* 2, 3, 4\]",
    ),
    ("model_in empty", lambda c: {"model_in": zeros(0, 3, 4)}, ValueError, "`model_in` must have shape"),
    ("model_in axes", lambda c: {"model_in": zeros(2, 12)}, ValueError, "`model_in` must have shape"),
    (
        "model_in dtype",
        lambda c: {"model_in": zeros(2, 3, 4, dtype=F64)},
        TypeError,
        "`model_in` must be torch.f",
    ),
    (
        "model_in order",
        lambda c: {"model_in": REVERSED},
        ValueError,
        "`model_in` .* memory order",
    ),
    ("model_in is x", lambda c: {"model_in": c.x}, ValueError, "`model_in` .* must not overlap `x`"),
    (
        "model_in is x_out",
        lambda c: {"x_out": (t := zeros(2, 3, 4)), "model_in": t},
        ValueError,
        "must not overlap",
    ),
]


@pytest.mark.parametrize(
    ("name", "change", "error", "message"), WRONG_IN_PLACE, ids=[w[0] for w in WRONG_IN_PLACE]
)
def test_in_place_names_the_argument(name, change, error, message):
    case = good()
    arguments = {"x_out": torch.empty_like(case.x)} | change(case)
    before = [t.clone() for t in (case.x, *case.outs, case.options["history"], case.options["anchor"])]
    with pytest.raises(error, match=message):
        in_place(case, **arguments)
    after = (case.x, *case.outs, case.options["history"], case.options["anchor"])
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_neighbours_in_memory_do_not_overlap():
    """x, x_out and model_in side by side in one storage are fine."""
    case = good()
    storage = torch.zeros(4, 2, 3, 4)
    storage[0] = case.x
    in_place(case.changed(x=storage[0]), storage[1], storage[2:].flatten(0, 1))


# The schema's own checks (a missing tensor, a str for an int) are torch's; the rest is the operator's.
RAW = [
    (name, value)
    for name, value, _, _ in WRONG
    if name
    in ("coef", "step", "anchor", "history", "weights", "elem", "elem_map", "noise", "rng", "clip_scale")
    and not isinstance(value, int)
    and value is not None
    and value.device.type == "cpu"
] + [
    ("outs", [zeros(2, 3, 4), zeros(2, 6, 4)]),
    ("outs", []),
    ("outs", [zeros(2, 3, 4)] * 5),
    ("outs", [zeros(2, 3, 4)] * 3),
]


@pytest.mark.emulated
@pytest.mark.parametrize(("name", "value"), RAW, ids=[f"{n}-{i}" for i, (n, _) in enumerate(RAW)])
def test_raw_operators_do_not_crash(backend, name, value):
    """What could read or write foreign memory is refused by the operator itself, on every backend."""
    case = good().to(backend.device)
    move = lambda v: v.to(backend.device)  # noqa: E731
    bad = case.changed(**{name: list(map(move, value)) if isinstance(value, list) else move(value)})
    if name == "rng":
        bad.options["noise"] = None
    if name == "step" and value.numel() == 1 and value.dtype == I64:
        pytest.skip("one number is one number")
    x, outs, anchor, history, *rest = raw(bad)
    with pytest.raises((RuntimeError, ValueError)):
        torch.ops.fastdiff_ops.solver_step(x, outs, anchor, history, *rest)
    with pytest.raises((RuntimeError, ValueError)):
        torch.ops.fastdiff_ops.solver_step_(x, outs, torch.empty_like(x), anchor, history, None, *rest)


@pytest.mark.emulated
def test_raw_modes(backend):
    case = good().to(backend.device)
    arguments = list(raw(case))
    for position, values in ((12, (-1, 3)), (13, (-1, 3)), (14, (-1, 3))):
        for value in values:
            bad = [*arguments]
            bad[position] = value
            with pytest.raises(RuntimeError, match="must be 0, 1 or 2"):
                torch.ops.fastdiff_ops.solver_step(*bad)


def missing(backend: Any, call: Callable[[], Tensor], message: str) -> None:
    """The CPU reads coefficients and says what is missing; a device cannot, and answers NaN."""
    if backend.name == "cpu":
        with pytest.raises(ValueError, match=message):
            call()
    else:
        assert bool(call().isnan().all())


@pytest.mark.emulated
@pytest.mark.parametrize("step", [-1, 2, 2**62, -(2**63)])
@pytest.mark.parametrize("per_sample", [False, True])
def test_step_outside_the_table(backend, step, per_sample):
    options = {
        "per_sample": per_sample,
        "elements": (10, 64),
        "elem_shape": (3,),
        "elem_steps": 2,
    }
    case = random_case(1, (2, 3), steps=2, noise="rng", **options).to(backend.device)
    case.step.fill_(step)
    missing(backend, lambda: run(case)[0], r"`step` must lie in \[0, 2\), got")
    if backend.name == "cpu":
        with pytest.raises(ValueError, match="`step` must lie"):
            run_in_place(case)
    else:
        run_in_place(case)  # and nothing outside the ring is touched


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ops.Row(anchor=1.0), "`anchor` is missing"),
        (ops.Row(noise=1.0), "`noise` or `rng` is missing"),
        (ops.Row(history=(0.0, 1.0)), "`history` must hold at least 2 values, got 1"),
        (ops.Row(corrected=1.0), "`anchor_mode` must be row"),
    ],
    ids=["anchor", "noise", "history", "corrected"],
)
def test_a_weight_for_a_missing_tensor(backend, row, message):
    x = torch.ones(2, 5, device=backend.device)
    coef, step = table({"X": row}).to(backend.device), torch.tensor(0, device=backend.device)
    missing(backend, lambda: ops.solver_step(x, [x], coef, step, history=x[None])[0], message)


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("where", "message"), [(9, "`anchor`"), (11, "`noise`"), (6, "`history`"), (12, "`anchor_mode`")]
)
def test_an_element_coefficient_for_a_missing_tensor(backend, where, message):
    x = torch.ones(2, 5, device=backend.device)
    coef = table({"X": ops.Row(output=1.0)}).to(backend.device)
    elements = {"elem": torch.ones(1, 1, 5), "elem_map": torch.tensor([where])}
    elements = {k: v.to(backend.device) for k, v in elements.items()}
    step = torch.tensor(0, device=backend.device)
    missing(backend, lambda: ops.solver_step(x, [x], coef, step, **elements)[0], message)


@pytest.mark.emulated
@pytest.mark.parametrize("where", [-1, 0, 5, 60, 63, 68, 2**40, -(2**63)])
def test_elem_map_out_of_range(backend, where):
    """The CPU refuses; a device ignores what no element may replace rather than write where it points."""
    case = random_case(1, (2, 3), elements=(10,), elem_shape=(3,)).to(backend.device)
    case.options["elem_map"].fill_(where)
    if backend.name == "cpu":
        with pytest.raises(ValueError, match=f"`elem_map` names position {where}"):
            run(case)
    else:
        run(case)


def test_pack_coef_and_row():
    with pytest.raises(ValueError, match="`history` holds at most 8"):
        ops.Row(history=(1.0,) * 9).to_array()
    with pytest.raises(ValueError, match=r"`weights` must have shape \(13,\)"):
        ops.Row.from_array([1.0])
    rows = torch.zeros(2, 4, 13).numpy()
    with pytest.raises(ValueError, match=r"`rows` must have shape \[E, 4, 13\]"):
        ops.pack_coef(rows[0], [[0, 1]])
    with pytest.raises(ValueError, match=r"`conv` must have shape \(2, 2\)"):
        ops.pack_coef(rows, [[0, 1]])
    with pytest.raises(ValueError, match="coefficients of step 1 are not finite"):
        ops.pack_coef(rows, [[0, 1], [0, float("nan")]])
    rows[1, 1, 4] = 1
    with pytest.raises(ValueError, match="row A cannot depend on `corrected`"):
        ops.pack_coef(rows, [[0, 1]] * 2)
