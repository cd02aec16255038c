"""The history ring over many consecutive in-place calls, against a Python list of values by age."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastdiff_ops import ops
from ops.step_cases import DTYPES, F16, F32, F64, random_case, run, run_in_place, same, table

STEPS = 20


def random_rows(random: np.random.Generator, e: int, n_hist: int, n_store: int) -> dict[str, ops.Row]:
    """Rows that read every age that exists by now, and now and then store nothing."""
    known = min(n_hist, e * n_store)  # the other slots hold NaN still
    weights = lambda: tuple(random.uniform(-0.4, 0.4, known).tolist())  # noqa: E731
    rows = {"X": ops.Row(state=0.5, output=0.3, history=weights())}
    for name in ("S0", "S1")[:n_store]:
        if e < n_hist or random.random() < 0.7:
            rows[name] = ops.Row(state=random.uniform(-1, 1), output=0.5, history=weights())
    return rows


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize(
    ("n_hist", "n_store"), [(k, 1) for k in range(1, 9)] + [(2, 2), (4, 2), (6, 2), (8, 2), (3, 0)]
)
def test_ring_is_a_list_by_age(backend, n_hist, n_store, dtype):
    random = np.random.default_rng(n_hist)
    steps = [random_rows(random, e, n_hist, n_store) for e in range(STEPS)]
    coef = table(*steps).to(backend.device)
    x = torch.from_numpy(random.standard_normal((2, 7))).to(backend.device, dtype)
    ring = torch.full((n_hist, 2, 7), torch.nan, dtype=dtype, device=backend.device)
    stored: list[torch.Tensor] = [ring[0].clone() for _ in range(n_hist)]  # newest first
    step = torch.tensor(0, device=backend.device)
    tolerance = {"rtol": 0, "atol": 1e-12 if dtype == F64 else 3e-5}

    def combine(row: ops.Row, out: torch.Tensor) -> torch.Tensor:
        return row.state * x + row.output * out + sum(w * stored[j] for j, w in enumerate(row.history))

    for e in range(STEPS):
        out = torch.from_numpy(random.standard_normal((2, 7))).to(backend.device, dtype)
        expected = combine(steps[e]["X"], out)
        pushed = []
        for k, name in enumerate(("S0", "S1")[:n_store]):
            # an empty row leaves the slot alone, the head moves: the oldest value becomes the newest
            pushed.append(combine(steps[e][name], out) if name in steps[e] else stored[n_hist - 1 - k])
        x_out = torch.empty_like(x)
        ops.solver_step_(x, [out], x_out, coef, step, history=ring, n_store=n_store)
        torch.testing.assert_close(x_out, expected, **tolerance)
        stored = [*reversed(pushed), *stored][:n_hist]
        x = expected
        step.add_(1)
        head = (e + 1) * n_store % n_hist
        by_age = torch.stack([ring[(head - 1 - j) % n_hist] for j in range(n_hist)])
        torch.testing.assert_close(by_age, torch.stack(stored), equal_nan=True, **tolerance)
        ring.copy_(torch.stack([stored[(head - 1 - slot) % n_hist] for slot in range(n_hist)]))


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_replaced_slot_is_read_first(backend, dtype):
    """The oldest value leaves in the call that overwrites it, with more terms than one pass combines."""
    for n_hist, n_store in ((8, 1), (8, 2), (2, 2), (1, 1)):
        case = random_case(
            n_hist,
            (2, 37),
            dtypes=(dtype,) * 4,
            n_hist=n_hist,
            n_store=n_store,
            anchor_mode="row",
            density=1.0,
        ).to(backend.device)
        x_next, anchor, *stored = run(case)
        got = run_in_place(case)
        assert same([got["x_next"], got["anchor"]], [x_next, anchor])
        for k in range(n_store):
            slot = (int(case.step) * n_store + k) % n_hist
            assert same([got["history"][slot]], [stored[k]])


@pytest.mark.emulated
def test_half_precision_state_with_float32_history(backend):
    """The ring keeps what half precision would lose: differences of nearly equal outputs."""
    coef = table({"S0": ops.Row(output=1.0)}, {"X": ops.Row(output=1.0, history=(-1.0,))}).to(backend.device)
    x = torch.zeros(1, 8, dtype=F16, device=backend.device)
    ring = torch.zeros(1, 1, 8, device=backend.device)
    first, second = (torch.full((1, 8), v, device=backend.device) for v in (1.0, 1.0 + 2**-16))
    x_out = torch.empty_like(x)
    for e, out in enumerate((first, second)):
        step = torch.tensor(e, device=backend.device)
        ops.solver_step_(x, [out], x_out, coef, step, history=ring, n_store=1)
    assert torch.equal(x_out, torch.full_like(x, 2**-16))


@pytest.mark.emulated
def test_head_moves_with_the_step_alone(backend):
    """The head is a function of the step index: calls may come in any order, and nobody counts them."""
    rows = [{"S0": ops.Row(output=float(e + 1))} for e in range(9)]
    coef = table(*rows).to(backend.device)
    x = torch.zeros(1, 4, device=backend.device)
    ring = torch.zeros(3, 1, 4, device=backend.device)
    for e in (7, 2, 3):  # in no order
        step = torch.tensor(e, device=backend.device)
        ops.solver_step_(x, [x + 1], torch.empty_like(x), coef, step, history=ring, n_store=1)
    assert ring[:, 0, 0].tolist() == [4.0, 8.0, 3.0]
