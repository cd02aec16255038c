"""tsp_search_slice: equal to the reference, tours and lengths in step, slices that join, bad input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from fastdiff_ops.ops.tour_search import pack_candidates, tsp_search_slice
from fastdiff_ops.reference import tour_search as reference

OPERATOR = torch.ops.fastdiff_ops.tsp_search_slice
LENGTH, BEST, FIRST, ACCEPTED, RESTORED = range(5)


@dataclasses.dataclass
class Search:
    """What one search carries, and its arguments."""

    points: torch.Tensor
    candidates: torch.Tensor
    temperature: torch.Tensor
    rng: torch.Tensor
    tours: torch.Tensor
    best: torch.Tensor
    state: torch.Tensor
    span: tuple[int, int] = (0, 100)

    def run(self, first: int, last: int, operator=tsp_search_slice, **options) -> Search:
        kicks = torch.tensor([first, last, *self.span], device=self.tours.device)
        state = (self.tours, self.best, self.state)
        operator(*state, self.points, self.candidates, kicks, self.temperature, self.rng, **options)
        return self

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Search:
        """Return a copy; `dtype` is the candidates'."""
        copies = {
            field.name: value.clone().to(device)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        if dtype == torch.int32:
            copies["candidates"] = copies["candidates"].int()
        return dataclasses.replace(self, **copies)

    @property
    def outcome(self) -> tuple[list, list, list]:
        return self.tours.tolist(), self.best.tolist(), self.state.tolist()


def lengths(points: torch.Tensor, tours: torch.Tensor) -> torch.Tensor:
    """Return the lengths of tours [B, P, N], summed edge by edge."""
    instances = torch.arange(tours.shape[0])[:, None, None]
    ordered = points.cpu()[instances, tours.cpu().long()].numpy()
    steps = ordered - np.roll(ordered, -1, axis=2)
    squares = steps * steps
    edges = np.sqrt(squares[..., 0] + squares[..., 1])  # PyTorch's root need not be the nearest float32
    return torch.from_numpy(edges.astype(np.int64).sum(-1)).to(tours.device)


def make(n: int, batch: int = 1, trajectories: int = 2, *, kind: str = "uniform", width: int = 8) -> Search:
    generator = torch.Generator().manual_seed(n)
    points = torch.rand(batch, n, 2, generator=generator)
    if kind == "lattice":
        points = (points * 4).floor() / 4
    elif kind == "line":
        points[..., 0] = 0.5
    elif kind == "copies":
        points[:, n // 2 :] = points[:, :1]
    points *= 2**24
    far = torch.cdist(points.double(), points.double()) + torch.eye(n) * 1e12
    ids = far.argsort(dim=-1, stable=True)[..., : min(width, n - 1)]
    walks = batch * trajectories
    tours = torch.stack([torch.randperm(n, generator=generator) for _ in range(walks)])
    temperature = torch.rand(trajectories, 3, generator=generator, dtype=torch.float64)
    return Search(
        points,
        pack_candidates(ids),
        temperature,
        torch.tensor([2**63 - 5, 3]),
        tours.int().reshape(batch, trajectories, n),
        torch.full((batch, trajectories, n), -9, dtype=torch.int32),
        torch.full((batch, trajectories, 5), -9),
    )


@pytest.mark.emulated
@pytest.mark.parametrize("kind", ["uniform", "lattice", "line", "copies"])
@pytest.mark.parametrize("n", [8, 13, 40])
def test_kernels_equal_the_reference(backend, n: int, kind: str) -> None:
    start = make(n, batch=2 if n < 20 else 1, trajectories=3 if n < 20 else 2, kind=kind)
    wanted = start.to(torch.device("cpu")).run(0, 40, reference.tsp_search_slice, segment=n // 6)
    for dtype in (torch.int16, torch.int32):
        assert start.to(backend.device, dtype).run(0, 40).outcome == wanted.outcome


def test_longer_walks_equal_the_reference() -> None:
    start = make(70, trajectories=1)
    wanted = start.to(torch.device("cpu")).run(0, 800, reference.tsp_search_slice, segment=7)
    assert start.run(0, 800, segment=7).outcome == wanted.outcome
    assert 0 < int(start.state[0, 0, ACCEPTED]) < 800


@pytest.mark.emulated
@pytest.mark.parametrize("width", [0, 1, 3, 8])
def test_tours_and_lengths_keep_step(backend, width: int) -> None:
    search = make(30, 2, 2, width=width).to(backend.device)
    shuffled = lengths(search.points, search.tours)
    for first in range(0, 60, 20):
        search.run(first, first + 20)
        numbers = torch.arange(30, device=backend.device, dtype=torch.int32).expand_as(search.tours)
        for tours, word in ((search.tours, LENGTH), (search.best, BEST)):
            assert torch.equal(tours.sort(-1).values, numbers)
            assert torch.equal(lengths(search.points, tours), search.state[..., word])
        assert (search.state[..., BEST] <= search.state[..., [LENGTH, FIRST]].min(-1).values).all()
        assert (search.state[..., FIRST] <= shuffled).all()


@pytest.mark.emulated
def test_slices_join(backend) -> None:
    whole, parts = make(24).to(backend.device), make(24).to(backend.device)
    whole.run(0, 60)
    for first, last in ((0, 0), (0, 1), (1, 20), (20, 20), (20, 60)):
        parts.run(first, last)
    assert parts.outcome == whole.outcome


@pytest.mark.emulated
def test_an_instance_alone_and_in_a_batch(backend) -> None:
    together = make(16, batch=3).to(backend.device)
    second = make(16, batch=3).to(backend.device)
    for name in ("points", "candidates", "tours", "best", "state"):
        setattr(second, name, getattr(second, name)[1:2].clone())
    second.rng[1] += 1
    together.run(0, 30)
    second.run(0, 30)
    assert torch.equal(second.tours[0], together.tours[1]) and torch.equal(second.state[0], together.state[1])


def test_seeds_and_trajectories_differ() -> None:
    first, other = make(90, trajectories=4), make(90, trajectories=4)
    other.rng[0] += 1
    for search in (first, other):
        search.tours[:] = search.tours[:, :1]
        search.temperature[:] = 1.0
        search.run(0, 60)
    assert len({tuple(tour) for tour in (*first.tours[0].tolist(), *other.tours[0].tolist())}) == 8


def test_many_cities() -> None:
    """Beyond 2^15 numbers of cities do not fit an int16, beyond 1024 bests are kept at intervals."""
    n = 40_000
    side = 200
    numbers = torch.arange(n)
    points = torch.stack([numbers % side, numbers // side], -1).float()[None] * 1000
    step = torch.tensor([1, -1, side, -side])
    ids = numbers[:, None] + step
    x = (numbers % side)[:, None]
    off = (ids < 0) | (ids >= n) | ((x == side - 1) & (step == 1)) | ((x == 0) & (step == -1))
    ids = ids.masked_fill(off, n).sort(-1).values
    ids = ids.masked_fill(ids == n, -1)
    results = []
    for dtype in (torch.int16, torch.int32):
        candidates = pack_candidates(ids[None]) if dtype == torch.int16 else ids.new_full((1, n, 8), -1).int()
        candidates[..., :4] = ids.to(dtype)
        search = make(8, trajectories=1)
        search = dataclasses.replace(
            search, points=points, candidates=candidates, tours=numbers.int().reshape(1, 1, n)
        )
        search.best, search.state = search.tours.clone(), torch.zeros(1, 1, 5, dtype=torch.int64)
        search.run(0, 200)
        assert torch.equal(lengths(points, search.tours), search.state[..., LENGTH])
        assert torch.equal(lengths(points, search.best), search.state[..., BEST])
        results.append(search.outcome)
    assert results[0] == results[1]


def test_annealing_finds_the_optimum() -> None:
    """Cities on a circle, visited in its order; and no trajectory is worse for more kicks."""
    n = 60
    angle = torch.randperm(n, generator=torch.Generator().manual_seed(1)) * (2 * torch.pi / n)
    search = make(n, trajectories=2)
    search.points = ((torch.stack([angle.cos(), angle.sin()], -1) + 1) * 2**23)[None].contiguous()
    search.candidates = pack_candidates(torch.cdist(search.points, search.points).argsort(-1)[..., 1:9])
    search.temperature[:] = torch.tensor([0.3, 0.1, 0.01], dtype=torch.float64)
    search.span = (0, 2000)
    search.run(0, 2000)
    optimum = lengths(search.points, angle.argsort()[None, None])
    assert torch.equal(search.state[..., BEST], optimum.expand(1, 2))


@pytest.mark.emulated
def test_what_is_no_tour_is_refused(backend) -> None:
    search = make(12, batch=2, trajectories=3)
    search.tours[0, 0, 3] = search.tours[0, 0, 4]
    search.tours[0, 1, 3] = 12
    search.tours[0, 2, 3] = -1
    search.points[1, 5, 1] = torch.nan
    before = search.to(torch.device("cpu"))
    search = search.to(backend.device).run(0, 5)
    before.state[..., LENGTH] = -1
    assert search.outcome == before.outcome


@pytest.mark.emulated
def test_what_is_no_best_tour_is_refused_later(backend) -> None:
    search = make(12).run(0, 5)
    search.best[0, 1, 0] = search.best[0, 1, 1]
    wanted = search.to(torch.device("cpu")).run(5, 9, reference.tsp_search_slice, segment=2)
    assert wanted.state[0, 1, LENGTH] == -1
    assert wanted.state[0, 0, LENGTH] > 0
    assert search.to(backend.device).run(5, 9).outcome == wanted.outcome


def test_temperature_zero_and_infinite() -> None:
    """At 0 no tour gets longer; at infinity every kick is accepted."""
    search = make(50, trajectories=2)
    search.temperature = torch.tensor([[0.0], [torch.inf]], dtype=torch.float64)
    last = None
    for first in range(0, 400, 50):
        search.run(first, first + 50)
        assert last is None or search.state[0, 0, LENGTH] <= last
        last = int(search.state[0, 0, LENGTH])
    assert search.state[0, 0, BEST] == last
    assert search.state[0, 1, ACCEPTED] == 400


def test_opcheck() -> None:
    search = make(12)
    kicks = torch.tensor([0, 3, 0, 3])
    state = (search.tours, search.best, search.state)
    arguments = (*state, search.points, search.candidates, kicks, search.temperature, search.rng, 2)
    torch.library.opcheck(OPERATOR, arguments)


def test_compiles_to_one_graph() -> None:
    search, wanted = make(12), make(12)
    compiled = torch.compile(tsp_search_slice, fullgraph=True, backend="aot_eager")
    for first in (0, 3, 6):
        search.run(first, first + 3, compiled)
        with torch.compiler.set_stance("fail_on_recompile"):
            search.run(first, first, compiled)
        wanted.run(first, first + 3)
        wanted.run(first, first)
    assert search.outcome == wanted.outcome


@pytest.mark.parametrize(
    ("name", "change", "error", "text"),
    [
        ("tours", lambda t: t.long(), TypeError, "`tours` must be torch.int32"),
        ("tours", lambda t: t[0], ValueError, "`tours` must have shape"),
        ("tours", lambda t: t[..., :7], ValueError, "at least 8 cities, got 7"),
        ("tours", lambda t: t.mT.contiguous().mT, ValueError, "`tours` must be contiguous"),
        ("best", lambda t: t[:, :1], ValueError, r"`best` must have shape \[1, 2, 12\], got \(1, 1, 12\)"),
        ("state", lambda t: t[..., :4], ValueError, "`state` must have shape"),
        ("points", lambda t: t.double(), TypeError, "`points` must be torch.float32"),
        ("points", lambda t: t.to("meta"), ValueError, "`points` must be on the device of `tours`"),
        ("candidates", lambda t: t.long(), TypeError, "`candidates` must be torch.int16 or torch.int32"),
        ("candidates", lambda t: t[..., :5], ValueError, "`candidates` must have shape"),
        ("temperature", lambda t: t[:1], ValueError, "`temperature` must have shape"),
        ("temperature", lambda t: t[:, :0], ValueError, "M >= 1"),
        ("rng", lambda t: t[:1], ValueError, "`rng` must have shape"),
        ("points", lambda t: None, TypeError, "`points` must be a Tensor, got NoneType"),
    ],
)
def test_bad_input(name, change, error, text) -> None:
    search = make(12)
    setattr(search, name, change(getattr(search, name)))
    kicks = torch.tensor([0, 1, 0, 1])
    arguments = (search.points, search.candidates, kicks, search.temperature, search.rng)
    with pytest.raises(error, match=text):
        tsp_search_slice(search.tours, search.best, search.state, *arguments)


@pytest.mark.parametrize("segment", [0, 3, 1.5, True])
def test_bad_segment(segment) -> None:
    with pytest.raises((ValueError, TypeError), match="`segment` must be"):
        make(12).run(0, 1, segment=segment)


def test_bad_candidates() -> None:
    with pytest.raises(ValueError, match="`ids` must have shape"):
        pack_candidates(torch.zeros(3, 8, dtype=torch.int32))
    with pytest.raises(TypeError, match="`ids` must be"):
        pack_candidates(torch.zeros(1, 3, 8))
    assert pack_candidates(torch.zeros(1, 70_000, 3, dtype=torch.int64)).dtype == torch.int32


def test_the_operator_checks_by_itself() -> None:
    search = make(12)
    short = torch.tensor([0, 1, 0])
    state = (search.tours, search.best, search.state)
    with pytest.raises(RuntimeError, match="kicks must be"):
        OPERATOR(*state, search.points, search.candidates, short, search.temperature, search.rng, 2)
    with pytest.raises(RuntimeError, match="segment must be"):
        OPERATOR(*state, search.points, search.candidates, torch.arange(4), search.temperature, search.rng, 3)


@pytest.mark.gpu
def test_a_graph_serves_every_slice() -> None:
    """What a slice walks and how hot is on the device: one captured launch, replayed."""
    wanted = make(200, 4, 5).to(torch.device("cuda")).run(0, 300)
    search = make(200, 4, 5).to(torch.device("cuda"))
    kicks = torch.tensor([0, 0, 0, 100], device="cuda")

    def step() -> None:
        state = (search.tours, search.best, search.state)
        tsp_search_slice(*state, search.points, search.candidates, kicks, search.temperature, search.rng)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for first in range(0, 300, 60):
        kicks[:2] = torch.tensor([first, first + 60])
        graph.replay()
    assert search.outcome == wanted.outcome
