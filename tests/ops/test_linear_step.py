"""`solver_step` against its contract, evaluated independently in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from fastdiff_ops import ops
from ops.step_cases import (
    BF16,
    DTYPES,
    ELEMENTS,
    F16,
    F32,
    F64,
    check,
    check_case,
    evaluate,
    is_wide,
    random_case,
    run,
    run_in_place,
    same,
    table,
)

CLIPS = ("none", "static", "dynamic")
ANCHORS = ("same", "keep", "row")


def random_options(seed: int) -> dict[str, object]:
    """Draw what a random call consists of."""
    random = np.random.default_rng(1000 + seed)
    pick = lambda *choices: choices[random.integers(len(choices))]  # noqa: E731
    n_store = pick(0, 1, 2)
    elements = tuple(random.permutation(ELEMENTS)[: random.integers(1, 8)].tolist()) if seed % 3 == 0 else ()
    n_hist = pick(2, 4, 6, 8) if n_store == 2 else pick(*range(1, 9))
    return {
        "dtypes": [pick(*DTYPES) for _ in range(4)],
        "n_outs": pick(1, 2, 3, 4),
        "n_hist": n_hist,
        "n_store": n_store,
        "clip_mode": pick(*CLIPS),
        "anchor_mode": pick(*ANCHORS),
        "per_sample": pick(True, False),
        "density": pick(0.2, 0.7, 1.0),
        "elements": elements,
        "elem_shape": pick((), (5,), (4, 5), (3, 1, 1), (3, 4, 5), (4, 1), (3, 1, 5)),
        "elem_steps": pick(1, 3),
    }


@pytest.mark.emulated
@pytest.mark.parametrize("seed", range(60))
def test_random_steps(backend, seed):
    check_case(random_case(seed, **random_options(seed)).to(backend.device))


@pytest.mark.emulated
@pytest.mark.parametrize(("x", "out"), list(itertools.product(DTYPES, DTYPES)), ids=str)
def test_every_mixture_of_dtypes(backend, x, out):
    for history, noise in itertools.product(DTYPES, DTYPES[1:3]):
        case = random_case(5, (2, 9), dtypes=(x, out, history, noise), anchor_mode="row")
        check_case(case.to(backend.device))


@pytest.mark.emulated
@pytest.mark.parametrize("seed", range(12))
def test_in_place_equals_functional(backend, seed):
    options = random_options(seed + 100)
    case = random_case(seed, **options).to(backend.device)
    x_next, anchor, *stored = run(case)
    got = run_in_place(case, copies=1 + seed % 3)
    assert same([got["x_next"]], [x_next])
    before = case.options["anchor"]
    assert same([got["anchor"]], [anchor if options["anchor_mode"] == "row" else before])
    ring, n_store, length = case.options["history"].clone(), options["n_store"], options["n_hist"]
    for k in range(n_store):
        slot = (int(case.step) * n_store + k) % length
        rows = case.coef[case.step, :, 34 + 13 * k : 47 + 13 * k]
        for b in range(case.x.shape[0]):
            mapped = case.options.get("elem_map", torch.empty(0)).tolist()
            element = any(34 + 13 * k <= p < 47 + 13 * k or p == 66 + k for p in mapped)
            if element or rows[b % rows.shape[0]].any():
                ring[slot, b] = stored[k][b]
    assert same([got["history"]], [ring])
    value, size = evaluate(case)["model_in"]
    for copy in got["model_in"].chunk(1 + seed % 3):
        check(copy, (value, size), is_wide(case))


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", [F16, BF16])
def test_model_in_is_scaled_before_it_is_rounded(backend, dtype):
    """float32 state, half-precision network: model_in is not c_in times a rounded x_next."""
    case = random_case(3, (2, 40), dtypes=(F32, dtype, F32, F32)).to(backend.device)
    got = run_in_place(case, copies=2)
    c_in = case.coef[int(case.step), 0, 60].float()
    assert got["model_in"].dtype == dtype
    assert torch.equal(got["model_in"], (c_in * got["x_next"]).to(dtype).repeat(2, 1))


@pytest.mark.emulated
def test_dpmpp_2m_by_hand(backend):
    """The update that this operator was made for, from its paper: x' = s x - a ((1 + r/2) D0 - r/2 D1)."""
    random = np.random.default_rng(0)
    x, eps, d1 = (torch.from_numpy(random.standard_normal((2, 3, 4))).to(backend.device) for _ in range(3))
    alpha, sigma, lin, phi, half_r = 0.8, 0.6, 0.7, -0.3, 0.25
    d0 = (x - sigma * eps) / alpha
    expected = lin * x - phi * ((1 + half_r) * d0 - half_r * d1)
    coef = table(
        {
            "X": ops.Row(state=lin, output=-phi * (1 + half_r), history=(phi * half_r,)),
            "S0": ops.Row(output=1.0),
        },
        conv=(1 / alpha, -sigma / alpha),
    ).to(backend.device)
    step = torch.tensor(0, device=backend.device)
    x_next, anchor, stored, second = ops.solver_step(x, [eps], coef, step, history=d1[None], n_store=1)
    torch.testing.assert_close(x_next, expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(stored, d0, rtol=1e-14, atol=1e-14)
    assert anchor.numel() == second.numel() == 0


@pytest.mark.emulated
def test_guidance_is_two_lines_of_torch(backend):
    """CFG as K = 2: o = o_u + w (o_c - o_u), per step and per sample; e_k is the jump."""
    case = random_case(1, (3, 8), n_outs=2, n_hist=0, n_store=0, noise="").to(backend.device)
    w = torch.tensor([[1.0, 3.0, 7.5], [0.0, 2.0, 1.0]], dtype=F64, device=backend.device)
    weights = torch.zeros(2, 2, 3, 2, dtype=F64, device=backend.device)
    weights[:, 0, :, 0], weights[:, 0, :, 1] = 1 - w, w
    weights[:, 1, :, 1] = 0.5
    coef = table(*[{"X": ops.Row(state=1.0, output=-0.5)}] * 2, jump=0.25).to(backend.device)
    for step in range(2):
        case = case.changed(coef=coef, weights=weights, step=torch.tensor(step, device=backend.device))
        uncond, cond = case.outs
        scale = w[step].float()[:, None]
        expected = case.x - 0.5 * (uncond + scale * (cond - uncond)) + 0.125 * cond
        torch.testing.assert_close(run(case)[0], expected, rtol=2e-6, atol=2e-6)


@pytest.mark.emulated
@pytest.mark.parametrize("anchor_mode", ANCHORS)
def test_anchor_modes(backend, anchor_mode):
    case = random_case(4, (2, 7), anchor_mode=anchor_mode).to(backend.device)
    before = case.options["anchor"].clone()
    check_case(case)
    got = run_in_place(case)["anchor"]
    assert torch.equal(got, before) == (anchor_mode != "row")
    assert torch.equal(case.options["anchor"], before)


@pytest.mark.emulated
def test_row_a_comes_first(backend):
    """A predictor from the corrected state: X may use row A of the same call, before A is rounded."""
    x, out = (torch.randn(2, 33, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    x, out = x.half().to(backend.device), out.half().to(backend.device)
    coef = table({"A": ops.Row(state=0.3, output=0.1), "X": ops.Row(corrected=2.0, output=1.0)}).to(
        backend.device
    )
    step = torch.tensor(0, device=backend.device)
    x_next, corrected, *_ = ops.solver_step(x, [out], coef, step, anchor=x, anchor_mode="row")
    exact = torch.tensor(0.3).float() * x.float() + torch.tensor(0.1).float() * out.float()
    torch.testing.assert_close(corrected, exact.half(), rtol=1e-3, atol=1e-5)
    # not 2 * corrected: the accumulator is used, not its rounding
    torch.testing.assert_close(x_next, (2 * exact + out.float()).half(), rtol=1e-3, atol=1e-6)


@pytest.mark.emulated
@pytest.mark.parametrize("clip_mode", CLIPS)
def test_clipping_of_a_nan_and_of_infinity(backend, clip_mode):
    """A NaN stays one (nothing is hidden); infinities are clipped."""
    out = torch.tensor([[float("nan"), float("inf"), -float("inf"), 0.25, 5.0]], device=backend.device)
    coef = table({"X": ops.Row(output=1.0)}, clip_bound=2.0).to(backend.device)
    scale = torch.tensor([2.0], device=backend.device)
    step = torch.tensor(0, device=backend.device)
    got = ops.solver_step(torch.zeros_like(out), [out], coef, step, clip_mode=clip_mode, clip_scale=scale)[0][
        0
    ]
    assert got[0].isnan()
    expected = {"none": out[0], "static": out[0].clamp(-2, 2), "dynamic": out[0].clamp(-2, 2) / 2}[clip_mode]
    assert torch.equal(got[1:], expected[1:])


@pytest.mark.emulated
@pytest.mark.parametrize("seed", range(6))
def test_per_sample_coefficients_are_separate_runs(backend, seed):
    options = random_options(seed + 50) | {"per_sample": True, "elements": ()}
    case = random_case(seed, (3, 2, 11), **options).to(backend.device)
    together = run(case)
    for b in range(3):
        one = slice(b, b + 1)
        parts = {"coef": case.coef[:, one], "weights": case.options["weights"][:, :, one]}
        for name in ("anchor", "noise", "clip_scale"):
            if name in case.options:
                parts[name] = case.options[name][one]
        parts["history"] = case.options["history"][:, one]
        alone = run(case.changed(x=case.x[one], outs=[o[one] for o in case.outs], **parts))
        assert same(alone, [t[one] if t.numel() else t for t in together])


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_finished_samples_wait_in_the_batch(backend, dtype):
    """Samples with fewer steps are padded with identity rows: they leave as they came, NaN output or not."""
    case = random_case(2, (2, 19), dtypes=(dtype,) * 4, per_sample=True, n_store=0).to(backend.device)
    case.coef[:, 1] = table({"X": ops.Row(state=1.0)})[0].to(backend.device)
    case.outs[0][1] = float("nan")
    x_next = run(case)[0]
    assert torch.equal(x_next[1], case.x[1])
    assert not torch.equal(x_next[0], case.x[0])


@pytest.mark.emulated
@pytest.mark.parametrize(
    "dtypes", [(F32,) * 4, (F16, F16, F32, F32), (F64,) * 4, (F32, F64, F16, BF16)], ids=str
)
def test_zero_coefficients_ignore_their_tensors(backend, dtypes):
    case = random_case(7, (2, 21), dtypes=dtypes, n_outs=2, n_hist=3, anchor_mode="row").to(backend.device)
    nan = float("nan")
    rows = case.coef[:, :, 8:60].view(3, 1, 4, 13)
    rows[..., [1, 3, 6]] = 0  # anchor, noise, age 1
    case.options["weights"][..., 1] = 0
    clean = run(case)
    case.outs[1].fill_(nan)
    case.options["anchor"].fill_(nan)
    case.options["noise"].fill_(nan)
    case.options["history"][(int(case.step) - 2) % 3] = nan
    assert same(run(case), clean)
    assert not clean[0].isnan().any()
    # ... and need not be there at all
    assert same(run(case.changed(noise=None, anchor=None)), clean)
    case.coef[:, :, 4] = 0  # m = d_x x + d_h h: the converted output may be NaN
    case.coef[:, :, 7] = 0
    clean = run(case)
    case.outs[0].fill_(nan)
    assert same(run(case), clean)
    assert not clean[0].isnan().any()
    case.coef[:, :, 4] = 1
    rows[..., 2] = 0  # without the model's term too
    assert not run(case)[0].isnan().any()


@pytest.mark.emulated
@pytest.mark.parametrize("where", ELEMENTS)
@pytest.mark.parametrize("shape", [(), (3, 1, 1), (3, 2, 5), (1, 2, 5), (2, 1), (3, 1, 5)], ids=str)
def test_element_coefficients(backend, where, shape):
    case = random_case(where, (2, 3, 2, 5), elements=(where,), elem_shape=shape, anchor_mode="row")
    check_case(case.to(backend.device))


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_every_position_an_element_coefficient(backend, dtype):
    everything = [p for p in (1, 2, 3, 4, 6, 7, *range(8, 60), *range(64, 68)) if p != 25]
    options = {"elements": everything, "elem_shape": (3, 1), "elem_steps": 3, "n_hist": 8, "n_store": 2}
    case = random_case(9, (2, 3, 7), dtypes=(dtype,) * 4, anchor_mode="row", **options)
    check_case(case.to(backend.device))


@pytest.mark.emulated
def test_one_launch_a_call(backend, count_launches):
    if backend.name != "emulated":
        pytest.skip("launches are counted by the emulation")
    for seed in range(12):
        case = random_case(seed, **random_options(seed))
        assert count_launches(lambda case=case: run(case)) == 1
        assert count_launches(lambda case=case: run_in_place(case, copies=2)) == 1
    rng = random_case(0, noise="rng")
    assert count_launches(lambda: run(rng)) == 1
    empty = random_case(0, (0, 4), elements=())
    assert count_launches(lambda: run(empty)) == 0


def test_pack_and_row_round_trip():
    row = ops.Row(state=1.0, anchor=2.0, output=3.0, noise=4.0, corrected=5.0, history=(6.0, 0.0, 8.0))
    assert ops.Row.from_array(row.to_array()) == row
    coef = table({"X": row}, conv=(0.1, 0.2), post=(0.3, 0.4, 0.5), clip_bound=0.6, jump=0.7, c_in=0.8)[0, 0]
    assert coef.tolist()[:21] == [0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.5, 0.7, 1, 2, 3, 4, 5, 6, 0, 8, 0, 0, 0, 0, 0]
    assert coef[60] == 0.8
