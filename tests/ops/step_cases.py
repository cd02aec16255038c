"""Random solver steps, and what each must give: the operator's contract evaluated in float64 numpy.

Positions of the coefficient vector are written out here once more, as numbers, so that the packed layout
itself is under test.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fastdiff_ops import ops
from torch import Tensor

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
DTYPES = (F16, BF16, F32, F64)
NAMES = ("x_next", "anchor", "S0", "S1")
X, A, S0, S1 = range(4)
BIAS = 64
# c_x, c_o, d_x, d_u, d_h, J, weights of x, m, noise and the newest value in X, of m in S0, two biases
ELEMENTS = (1, 2, 3, 4, 6, 7, 8, 10, 11, 13, 36, 64, 66)


@dataclasses.dataclass
class Case:
    """Arguments of `ops.solver_step`."""

    x: Tensor
    outs: list[Tensor]
    coef: Tensor
    step: Tensor
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def changed(self, **changes: Any) -> Case:
        """Return the case with other arguments; those named in `options` go there."""
        own = {k: changes.pop(k) for k in ("x", "outs", "coef", "step") if k in changes}
        return dataclasses.replace(self, **own, options={**self.options, **changes})

    def to(self, device: torch.device) -> Case:
        move = lambda v: v.to(device) if isinstance(v, Tensor) else v  # noqa: E731
        options = {k: move(v) for k, v in self.options.items()}
        return Case(move(self.x), [move(o) for o in self.outs], move(self.coef), move(self.step), options)


def run(case: Case) -> list[Tensor]:
    return ops.solver_step(case.x, case.outs, case.coef, case.step, **case.options)


def run_in_place(case: Case, copies: int = 0) -> dict[str, Tensor]:
    """Run `solver_step_` on copies of what it mutates; return x_next, anchor, history and model_in."""
    options = dict(case.options)
    for name in ("anchor", "history"):
        if options.get(name) is not None:
            options[name] = options[name].clone()
    x_out = torch.empty_like(case.x)
    model_in = torch.empty_like(torch.cat([case.outs[0]] * copies)) if copies else None
    ops.solver_step_(case.x, case.outs, x_out, case.coef, case.step, model_in=model_in, **options)
    return {"x_next": x_out, "model_in": model_in} | {k: options.get(k) for k in ("anchor", "history")}


def raw(case: Case, **options: Any) -> tuple[Any, ...]:
    """Return the arguments of torch.ops.fastdiff_ops.solver_step."""
    o = case.options | options
    names = ("weights", "elem", "elem_map", "clip_scale", "noise", "rng")
    modes = (
        o.get("n_store", 0),
        ("none", "static", "dynamic").index(o.get("clip_mode", "none")),
        ("same", "keep", "row").index(o.get("anchor_mode", "same")),
    )
    first = (case.x, case.outs, o.get("anchor"), o.get("history"), case.coef, case.step)
    return (*first, *map(o.get, names), *modes)


def table(*steps: dict[str, ops.Row], conv: Sequence[float] = (0.0, 1.0), **entries: Any) -> Tensor:
    """Return the table whose step e has the rows steps[e], by name: X, A, S0, S1."""
    rows = np.zeros((len(steps), 4, 13))
    for e, step in enumerate(steps):
        for name, row in step.items():
            rows[e, ("X", "A", "S0", "S1").index(name)] = row.to_array()
    return torch.from_numpy(ops.pack_coef(rows, [conv] * len(steps), **entries))


def random_case(
    seed: int,
    shape: Sequence[int] = (2, 3, 4, 5),
    *,
    dtypes: Sequence[torch.dtype] = (F32, F32, F32, F32),
    n_outs: int = 1,
    n_hist: int = 2,
    n_store: int = 1,
    clip_mode: str = "none",
    anchor_mode: str = "same",
    noise: str = "tensor",
    per_sample: bool = False,
    elements: Sequence[int] = (),
    elem_shape: Sequence[int] = (),
    elem_steps: int = 1,
    steps: int = 3,
    density: float = 0.7,
) -> Case:
    """Return a random step; `dtypes` of x, outs, history, noise; `noise` "tensor", "rng", "rngs" or ""."""
    random = np.random.default_rng(seed)
    batch = shape[0]
    normal = lambda *size: torch.from_numpy(np.asarray(random.standard_normal(size)))  # noqa: E731
    samples = batch if per_sample else 1
    rows = random.uniform(-1, 1, (steps * samples, 4, 13)) * (
        random.random((steps * samples, 4, 13)) < density
    )
    rows[:, :, 5 + n_hist :] = 0  # ages that do not exist
    rows[:, A if anchor_mode == "row" else slice(None), 4] = 0  # row A does not contain itself
    rows[:, :, 3] *= noise != ""
    numbers = random.uniform(-1, 1, (steps * samples, 6))
    post = np.stack([numbers[:, 2], numbers[:, 3], numbers[:, 4] * (n_hist > 0)], 1)
    coef = ops.pack_coef(
        rows, numbers[:, :2], post=post, clip_bound=0.4, jump=numbers[:, 5], c_in=0.5 + numbers[:, 0]
    )
    x_type, out_type, history_type, noise_type = dtypes
    options: dict[str, Any] = {"n_store": n_store, "clip_mode": clip_mode, "anchor_mode": anchor_mode}
    options["anchor"] = normal(*shape).to(x_type)
    if n_hist:
        options["history"] = normal(n_hist, *shape).to(history_type)
    if n_outs > 1 or per_sample:
        weight_steps = steps if seed % 2 else 1
        options["weights"] = torch.from_numpy(random.uniform(-2, 2, (weight_steps, 2, samples, n_outs)))
        if n_outs > 1:
            options["weights"][..., seed % n_outs] *= (
                seed % 3 > 0
            )  # now and then a branch that does not count
    if elements:
        options["elem"] = normal(elem_steps, len(elements), *elem_shape).to(F64 if seed % 2 else F32)
        options["elem"].view(elem_steps, len(elements), -1)[..., ::3] = 0  # a zero element skips its term too
        options["elem_map"] = torch.tensor(list(elements))
    if clip_mode == "dynamic":
        options["clip_scale"] = torch.from_numpy(random.uniform(0.3, 2, batch)).to(F64 if seed % 2 else F32)
    if noise == "tensor":
        options["noise"] = normal(*shape).to(noise_type)
    elif noise:
        numbers_of = [[seed, 7]] if noise == "rng" else [[seed + b, 7 * b, b] for b in range(batch)]
        options["rng"] = torch.tensor(numbers_of, dtype=torch.int64).reshape(-1, 2 if noise == "rng" else 3)
        if noise == "rng":
            options["rng"] = options["rng"][0]
    x, outs = normal(*shape).to(x_type), [normal(*shape).to(out_type) for _ in range(n_outs)]
    step = torch.tensor(int(random.integers(steps)))
    return Case(x, outs, torch.from_numpy(coef.reshape(steps, samples, 64)), step, options)


Pair = tuple[np.ndarray, np.ndarray]  # a value, and the sum of the magnitudes that went into it


def _array(t: Tensor | None) -> np.ndarray | None:
    return None if t is None else t.detach().cpu().to(F64).numpy()


def _column(values: np.ndarray | None, b: int) -> Pair | None:
    return None if values is None else (values[b], np.abs(values[b]))


def _total(shape: Sequence[int], *terms: tuple[Any, Pair | None]) -> Pair:
    """Return the weighted sum; a zero weight drops its term, whatever that holds."""
    value, size = np.zeros(shape), np.zeros(shape)
    for factor, pair in terms:
        if pair is None:
            assert not np.any(factor), "a weight for a tensor that is not there"
            continue
        with np.errstate(invalid="ignore"):
            value = value + np.where(factor != 0, factor * pair[0], 0)
            size = size + np.where(factor != 0, np.abs(factor) * pair[1], 0)
    return value, size


def is_wide(case: Case) -> bool:
    history = case.options.get("history")
    return case.x.dtype == F64 or (history is not None and history.dtype == F64)


def evaluate(case: Case) -> dict[str, Pair]:
    """Return x_next, anchor, S0, S1 (whether asked for or not) and model_in, from the definitions."""
    o = case.options
    accumulator = np.float64 if is_wide(case) else np.float32
    rounded = lambda v: np.asarray(v).astype(accumulator).astype(np.float64)  # noqa: E731
    step, n_store = int(case.step), o.get("n_store", 0)
    x, coef = _array(case.x), rounded(_array(case.coef)[step])
    anchor, noise, ring = (_array(o.get(name)) for name in ("anchor", "noise", "history"))
    at = lambda t: t[step if t.shape[0] > 1 else 0]  # noqa: E731
    wanted = {X, *[A] * (o.get("anchor_mode") == "row"), *([S0, S1][:n_store])}
    samples = []
    for b in range(x.shape[0]):
        shape = x.shape[1:]
        c: list[np.ndarray] = [np.broadcast_to(v, shape) for v in coef[b % coef.shape[0]]] + [
            np.zeros(shape)
        ] * 4
        if o.get("elem") is not None:
            for values, where in zip(at(_array(o["elem"])), o["elem_map"].tolist(), strict=True):
                c[where] = np.broadcast_to(rounded(values), shape)
        outs = [_array(out)[b] for out in case.outs]
        g, e = [1.0], [0.0]
        if o.get("weights") is not None:
            weights = rounded(at(_array(o["weights"])))
            g, e = weights[:, b % weights.shape[1]]

        total = functools.partial(_total, shape)
        out_pairs = [(v, np.abs(v)) for v in outs]
        guided = total(*zip(map(np.float64, g), out_pairs, strict=True))
        jump = total(*zip(map(np.float64, e), out_pairs, strict=True))
        u, size = total((c[1], _column(x, b)), (c[2], guided))
        if o.get("clip_mode") == "static":
            u = np.clip(u, -c[5], c[5])
        elif o.get("clip_mode") == "dynamic":
            scale = float(rounded(_array(o["clip_scale"]))[b])
            u, size = np.clip(u, -scale, scale) / scale, size / scale
        ages: list[Pair | None] = [None] * 8
        if ring is not None:
            length = ring.shape[0]
            head = step * n_store % length
            ages[:length] = [_column(ring[(head - 1 - j) % length], b) for j in range(length)]
        m = total((c[3], _column(x, b)), (c[4], (u, size)), (c[6], ages[0]))
        columns = [_column(x, b), _column(anchor, b), m, _column(noise, b), None, *ages]
        rows = {}
        for r in (A, X, S0, S1):
            if r not in wanted:
                continue
            weights = c[8 + 13 * r : 21 + 13 * r]
            terms = [(c[BIAS + r], (np.ones(shape), np.ones(shape))), *zip(weights, columns, strict=True)]
            rows[r] = total(*terms, *([(c[7], jump)] if r == X else []))
            if r == A:
                columns[4] = rows[r]
        samples.append([*map(rows.get, range(4)), total((c[60], rows[X]))])
    stacked = {}
    for i, name in enumerate((*NAMES, "model_in")):
        if samples[0][i] is not None:
            stacked[name] = (np.stack([s[i][0] for s in samples]), np.stack([s[i][1] for s in samples]))
    return stacked


_BITS = {F16: (10, -14), BF16: (7, -126), F32: (23, -126), F64: (52, -1022)}


def check(got: Tensor, expected: Pair, wide: bool) -> None:
    """Compare with the bound of a fused evaluation: roundings of the accumulator, one of the storage."""
    value, size = expected
    bound = (1e-14 if wide else 3e-7) * size
    bits, smallest = _BITS[got.dtype]
    with np.errstate(divide="ignore"):
        exponent = np.maximum(np.floor(np.log2(np.abs(value) + bound)), smallest)
    if got.dtype != (F64 if wide else F32):
        bound = bound + 0.5 * 2.0 ** (exponent - bits) + (2.0**-24 * np.abs(value) if wide else 0)
    actual = _array(got)
    assert actual.shape == value.shape
    error = np.abs(actual - value)
    worst = np.unravel_index(np.argmax(error - bound), error.shape)
    assert (error <= bound).all(), f"at {worst}: {actual[worst]} instead of {value[worst]} ± {bound[worst]}"


def check_case(case: Case, results: Sequence[Tensor] | None = None) -> None:
    """Run the case and compare every result that was asked for."""
    results = run(case) if results is None else results
    expected = evaluate(case)
    history = case.options.get("history")
    types = [case.x.dtype] * 2 + [case.x.dtype if history is None else history.dtype] * 2
    for name, got, dtype in zip(NAMES, results, types, strict=True):
        assert got.dtype == dtype, name
        if name in expected:
            check(got, expected[name], is_wide(case))
        else:
            assert got.numel() == 0, name


def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """Whether two results agree in every bit; NaN equals NaN."""
    return all(
        p.dtype == q.dtype and p.shape == q.shape and bool(((p == q) | (p.isnan() & q.isnan())).all())
        for p, q in zip(a, b, strict=True)
    )


def digest() -> str:
    """Return a hash of the results of many steps, for comparison between processes."""
    total = hashlib.sha256()
    for seed in range(64):
        dtypes = [DTYPES[(seed >> shift) % 4] for shift in (0, 1, 2, 4)]
        case = random_case(
            seed,
            (2, 3, 17, 1 + 13 * (seed % 5)),
            dtypes=dtypes,
            n_outs=1 + seed % 4,
            n_hist=seed % 8 + 1,
            clip_mode=("none", "static", "dynamic")[seed % 3],
            anchor_mode=("same", "row")[seed // 2 % 2],
            noise=("rng", "tensor", "rngs")[seed // 3 % 3],
            per_sample=seed % 5 == 0,
            elements=ELEMENTS[: seed % 7],
            elem_shape=((3, 1, 1), (1,))[seed % 2],
        )
        if seed % 4 == 3:
            case.x = case.x.contiguous(memory_format=torch.channels_last)
        for result in run(case):
            total.update(result.contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
