"""Tour search for many trajectories at once: the operator behind `tsp.solve` on CUDA tensors.

A trajectory is an iterated local search on one instance: a double bridge of three short segments (Martin,
Otto & Felten, "Large-step Markov chains for the traveling salesman problem", 1991), descent by 2-opt and
3-opt moves through candidate lists, Metropolis acceptance with annealing. One warp walks one trajectory.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from .._load import load_ops
from ..reference import tour_search as reference
from ._registration import register_reference

load_ops()

CANDIDATES: Final = 8
STATE_WORDS: Final = 5
MIN_CITIES: Final = 8
SEGMENT: Final = 50
LONGEST_SIDE: Final = 2.0**26


def tsp_search_slice(
    tours: Tensor,
    best: Tensor,
    state: Tensor,
    points: Tensor,
    candidates: Tensor,
    kicks: Tensor,
    temperature: Tensor,
    rng: Tensor,
    segment: int | None = None,
) -> None:
    """Let every trajectory of a batch of tour searches walk a range of kicks.

    Kick k of a trajectory draws from a Philox counter of its own (tag 14), and its temperature is a function
    of k alone: two ranges in a row are the one long range, bit for bit, and CPU and CUDA agree. One launch,
    no synchronisation; ranges and temperatures are on the device, so a captured graph serves all slices.

    Parameters
    ----------
    tours : int32 Tensor [B, P, N]
        The current tours of P trajectories on each of B instances, N >= 8. Changed in place.
    best : int32 Tensor [B, P, N]
        The shortest tours so far. Changed in place; kick 0 starts them.
    state : int64 Tensor [B, P, 5]
        Length of the current tour, of the best one, of the first local optimum; kicks accepted; kicks that
        outgrew the undo log and fell back to the best tour. Changed in place; kick 0 starts it. A length of
        -1 says that the trajectory was refused and nothing else changed: `tours` (or, from kick 1 on, `best`)
        held no permutation, or `points` was not finite or beyond 2^26.
    points : float32 Tensor [B, N, 2]
        An edge is as long as the integer part of its Euclidean length. Scale them up: 2^24 for the longer
        side of the bounding box leaves no difference that matters up to 10^5 cities.
    candidates : int16 or int32 Tensor [B, N, 8]
        Where new edges of each city lead, in ascending distance; the first id outside of 0..N-1 ends a list.
        int16 (the bits of a uint16) keeps tours in shared memory, int32 in global memory: `pack_candidates`.
    kicks : int64 Tensor [4]
        First and last kick of the range (the last is not walked), and the span of the temperatures. A range
        from 0 measures the tours and descends before its first kick.
    temperature : float64 Tensor [P, M]
        Of each trajectory, M >= 1 values evenly on the span, linear between them, constant outside; in mean
        edge lengths of the first local optimum. A kick that makes the tour longer by D is accepted with
        probability exp(-D / temperature).
    rng : int64 Tensor [2]
        Seed, and the number of the first instance of the batch.
    segment : int, optional
        The most cities of each of a kick's three segments, 1..N/6. Default min(50, N // 6).

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype, device or layout does not fit.

    Notes
    -----
    Integers come out, so no gradient flows. On the CPU this runs the GPU's algorithm lane by lane;
    `tsp.solve` is the faster search there.

    Examples
    --------
    >>> from fastdiff_ops import ops
    >>> points = torch.rand(1, 40, 2, generator=torch.Generator().manual_seed(0)) * 2**24
    >>> near = torch.cdist(points, points).topk(9, largest=False).indices[..., 1:]
    >>> candidates = pack_candidates(near)
    >>> tours = torch.arange(40, dtype=torch.int32).repeat(1, 3, 1)
    >>> best, state = torch.empty_like(tours), torch.empty(1, 3, 5, dtype=torch.int64)
    >>> kicks, rng = torch.tensor([0, 200, 0, 200]), torch.tensor([7, 0])
    >>> temperature = torch.tensor([[0.1, 0.01]], dtype=torch.float64).expand(3, 2)
    >>> tsp_search_slice(tours, best, state, points, candidates, kicks, temperature, rng)
    >>> bool((state[..., 1] <= state[..., 2]).all())
    True
    """
    _check("tours", tours, tours, (None, None, None), torch.int32)
    batch, trajectories, n = tours.shape
    if n < MIN_CITIES:
        raise ValueError(f"`tours` must visit at least {MIN_CITIES} cities, got {n}")
    _check("best", best, tours, (batch, trajectories, n), torch.int32)
    _check("state", state, tours, (batch, trajectories, STATE_WORDS), torch.int64)
    for name, value in (("tours", tours), ("best", best), ("state", state)):
        if not value.is_contiguous():
            raise ValueError(f"`{name}` must be contiguous: it is changed in place")
    _check("points", points, tours, (batch, n, 2), torch.float32)
    _check("candidates", candidates, tours, (batch, n, CANDIDATES), torch.int16, torch.int32)
    if candidates.dtype == torch.int16 and not _fits_shared(n, tours.device):
        raise ValueError(f"`candidates` must be int32 for {n} cities on this device, got {candidates.dtype}")
    _check("kicks", kicks, tours, (4,), torch.int64)
    _check("temperature", temperature, tours, (trajectories, None), torch.float64)
    if temperature.shape[1] < 1:
        raise ValueError(f"`temperature` must be [P, M] with M >= 1, got shape {tuple(temperature.shape)}")
    _check("rng", rng, tours, (2,), torch.int64)
    if segment is None:
        segment = min(SEGMENT, n // 6)
    elif isinstance(segment, bool) or not isinstance(segment, int):
        raise TypeError(f"`segment` must be an int, got {type(segment).__name__}")
    elif not 1 <= segment <= min(n // 6, 0xFFFF):
        raise ValueError(f"`segment` must be in 1..{min(n // 6, 0xFFFF)} (N / 6), got {segment}")
    inputs = (points.detach(), candidates, kicks, temperature.detach(), rng)
    torch.ops.fastdiff_ops.tsp_search_slice.default(tours, best, state, *inputs, segment)


def pack_candidates(ids: Tensor) -> Tensor:
    """Bring candidate lists into the form that `tsp_search_slice` takes on their device.

    Parameters
    ----------
    ids : int32 or int64 Tensor [B, N, K]
        Cities in ascending distance; -1 ends a list. From the ninth on they are dropped.

    Returns
    -------
    int16 or int32 Tensor [B, N, 8]
        int16 where tours of N cities fit the device's shared memory.

    Raises
    ------
    ValueError, TypeError
        If shape or dtype does not fit.

    Examples
    --------
    >>> pack_candidates(torch.tensor([[[1], [0]]]))[0, 0]
    tensor([ 1, -1, -1, -1, -1, -1, -1, -1], dtype=torch.int16)
    """
    _check("ids", ids, ids, (None, None, None), torch.int32, torch.int64)
    batch, n, width = ids.shape
    dtype = torch.int16 if _fits_shared(n, ids.device) else torch.int32
    packed = ids.new_full((batch, n, CANDIDATES), -1, dtype=dtype)
    kept = min(width, CANDIDATES)
    packed[..., :kept] = ids[..., :kept].to(dtype)  # ids from 2^15 on become negative: the bits count
    return packed


def _fits_shared(n: int, device: torch.device) -> bool:
    """Return whether a tour, its queue and its undo log fit a block: warp_bytes in slice_cuda.cu."""
    if n >= 0xFFFF:
        return False
    if device.type != "cuda":
        return True
    needed = 2 * 2 * n + 4 * -(-n // 32) + 2 * (128 + 2 * 64)
    card = torch.cuda.get_device_properties(device)
    limit: int = getattr(card, "shared_memory_per_block_optin", card.shared_memory_per_block)
    return -(-needed // 16) * 16 <= limit


def _check(
    name: str, value: object, like: Tensor, shape: tuple[int | None, ...], *dtypes: torch.dtype
) -> None:
    """Raise unless `value` is a tensor of one of the dtypes and of the shape (None: any) beside `like`."""
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a Tensor, got {type(value).__name__}")
    if value.dtype not in dtypes:
        raise TypeError(f"`{name}` must be {' or '.join(map(str, dtypes))}, got {value.dtype}")
    fits = value.dim() == len(shape) and all(
        wanted is None or size == wanted for size, wanted in zip(value.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("*" if size is None else str(size) for size in shape)
        raise ValueError(f"`{name}` must have shape [{wanted}], got {tuple(value.shape)}")
    if value.device != like.device:
        raise ValueError(f"`{name}` must be on the device of `tours`, {like.device}, got {value.device}")


@torch.library.register_fake("fastdiff_ops::tsp_search_slice")
def _(
    tours: Tensor,
    best: Tensor,
    state: Tensor,
    points: Tensor,
    candidates: Tensor,
    kicks: Tensor,
    temperature: Tensor,
    rng: Tensor,
    segment: int,
) -> None:
    return None


register_reference("tsp_search_slice", reference.tsp_search_slice)
