"""How long tours are after equal processor time: our searches, LKH and fast-tsp on the same instances."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Record
from .interleave import Contest
from .tours import FULL, QUICK, Heat, Race, run


def cases() -> list[Any]:
    """Every competitor of every heat; a heat of quick runs is marked."""
    return [
        pytest.param(heat, name, quick, id=f"{'quick-' if quick else ''}{heat.n}-{name}")
        for quick, heats in ((False, FULL), (True, QUICK))
        for heat in heats
        for name in heat.names()
    ]


@pytest.mark.parametrize(("heat", "name", "quick"), cases())
def test_tours(
    record: Record,
    pytestconfig: pytest.Config,
    contests: dict[Any, Contest],
    heat: Heat,
    name: str,
    quick: bool,
) -> None:
    """One thread, budgets in seconds of the process."""
    if quick != bool(pytestconfig.getoption("--quick")):
        pytest.skip("of the other mode")
    races: dict[Any, Race] = contests  # type: ignore[assignment]
    if heat not in races:
        races[heat] = run(heat)
    race = races[heat]
    if name not in race.runs:
        pytest.skip("not available here")
    info = {"job": "tours", "shape": str(heat.n), "dtype": "float64", "threads": 1, **race.info(name, heat.n)}
    record(race.contest, name, f"tours of {heat.n} cities", **info)
