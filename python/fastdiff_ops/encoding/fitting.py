"""What fits of every kind share: fields by seed, the loop of training, files in half precision."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..ops._levels import check_choice, check_int
from .field import FieldMLP
from .grid import GridEncoding
from .simplex import SimplexEncoding

__all__ = [
    "LATTICES",
    "Clock",
    "half_precision",
    "is_measured",
    "load_field",
    "new_field",
    "save_field",
    "train",
]

LATTICES: dict[str, type[SimplexEncoding | GridEncoding]] = {
    "simplex": SimplexEncoding,
    "grid": GridEncoding,
}
# Adam: 1e-8 would swallow the gradients of entries that are rarely hit.
_BETAS, _EPS = (0.9, 0.99), 1e-15
_FINAL_RATE = 0.02


def new_field(
    lattice: str,
    n_input_dims: int,
    n_output_dims: int,
    *,
    seed: int,
    device: torch.device | str | None = None,
    width: int = 64,
    n_hidden: int = 2,
    **options: Any,
) -> FieldMLP:
    """Make a field whose initial values are a function of the seed.

    Parameters
    ----------
    lattice : {"simplex", "grid"}
    n_input_dims, n_output_dims : int
    seed : int
        >= 0.
    device : torch.device or str, optional
    width, n_hidden : int
        Of the network.
    **options
        Further arguments of `SimplexEncoding` or `GridEncoding`.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.
    """
    check_choice("encoding", lattice, tuple(LATTICES))
    check_int("seed", seed, 0, None)
    encoding = LATTICES[lattice](n_input_dims, seed=seed, **options)
    with torch.random.fork_rng(devices=[]):  # torch.nn draws from the global generator
        torch.manual_seed(seed)
        field = FieldMLP(encoding, n_output_dims, width=width, n_hidden=n_hidden)
    return field.to(device)


class Clock:
    """Seconds of training: those in which it does not stand still."""

    def __init__(self) -> None:
        self._elapsed = 0.0
        self._started: float | None = None

    @property
    def seconds(self) -> float:
        """What has passed so far."""
        return self._elapsed + (0.0 if self._started is None else time.perf_counter() - self._started)

    def start(self) -> None:
        """Go on."""
        self._started = time.perf_counter()

    def stop(self) -> None:
        """Stand still."""
        self._elapsed, self._started = self.seconds, None


def train(
    field: FieldMLP,
    loss: Callable[[], Tensor],
    after_step: Callable[[int, bool, Clock], None],
    *,
    steps: int,
    seconds: float | None,
    learning_rate: float,
) -> None:
    """Minimise a loss by Adam, the rate falling as a cosine.

    Parameters
    ----------
    field : FieldMLP
    loss : callable
        Draws a batch and returns its loss.
    after_step : callable
        Called with the number of steps done, whether that was the last one, and the clock, which stands still
        meanwhile.
    steps : int
        >= 1.
    seconds : float, optional
        End sooner, after so much time.
    learning_rate : float
        > 0.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.
    """
    check_int("steps", steps, 1, None)
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError(f"`seconds` must be positive, got {seconds}")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"`learning_rate` must be positive, got {learning_rate}")
    optimizer = torch.optim.Adam(field.parameters(), lr=learning_rate, betas=_BETAS, eps=_EPS, fused=True)
    clock = Clock()
    clock.start()
    for step in range(1, steps + 1):
        done = (step - 1) / steps
        if seconds is not None:
            done = min(1.0, max(done, clock.seconds / seconds))
        factor = _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * factor
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        last = step == steps or (seconds is not None and clock.seconds >= seconds)
        clock.stop()
        after_step(step, last, clock)
        clock.start()
        if last:
            return


def is_measured(step: int, steps: int, last: bool) -> bool:
    """Tell whether to measure quality after a step: at powers of two, 16 times evenly, and at the end."""
    return last or step % max(1, steps // 16) == 0 or step & (step - 1) == 0


def half_precision(field: FieldMLP) -> FieldMLP:
    """Return a copy whose parameters are rounded to float16, and kept in their dtype."""
    rounded = copy.deepcopy(field)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.half())
    return rounded


def save_field(field: FieldMLP, path: Path | str) -> None:
    """Write a field's parameters in half precision, and what `load_field` needs, as safetensors.

    Parameters
    ----------
    field : FieldMLP
        Of a `SimplexEncoding` or `GridEncoding`, with biases.
    path : Path or str

    Raises
    ------
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> field = new_field("simplex", 2, 3, seed=0, n_levels=2, log2_hashmap_size=6, base_resolution=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_field(field, f"{folder}/field.safetensors")
    ...     load_field(f"{folder}/field.safetensors").encoding.levels == field.encoding.levels
    True
    """
    from safetensors.torch import save

    encoding = field.encoding
    config = {f.name: getattr(encoding.levels, f.name) for f in dataclasses.fields(encoding.levels) if f.init}
    config["n_input_dims"] = config.pop("n")
    config |= {"n_features_per_level": encoding.n_features_per_level, "bounds": encoding.bounds}
    linear = [m for m in field.layers if isinstance(m, torch.nn.Linear)]
    network = {"n_output_dims": linear[-1].out_features, "n_hidden": len(linear) - 1}
    if len(linear) > 1:
        network["width"] = linear[0].out_features
    lattice = next(name for name, kind in LATTICES.items() if isinstance(encoding, kind))
    description = json.dumps({"lattice": lattice, "encoding": config, "network": network})
    parameters = {key: value.half().cpu().contiguous() for key, value in field.state_dict().items()}
    Path(path).write_bytes(save(parameters, {"field": description}))


def load_field(path: Path | str, device: torch.device | str | None = None) -> FieldMLP:
    """Read what `save_field` wrote; parameters are float32 again.

    Parameters
    ----------
    path : Path or str
    device : torch.device or str, optional

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, or holds no field.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error
    if "field" not in metadata:
        raise ValueError(f"{path} holds no field")
    found = json.loads(metadata["field"])
    field = FieldMLP(LATTICES[found["lattice"]](**found["encoding"], seed=0), **found["network"])
    field.load_state_dict(load_file(path))
    return field.to(device)
