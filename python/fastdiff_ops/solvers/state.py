"""A sampling run between two steps: what is needed to continue it exactly."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .memory import order
from .start import check_latents
from .table import SolverTable

FORMAT = "fastdiff_ops.TrajectoryState"


@dataclass(frozen=True)
class TrajectoryState:
    """Snapshot of a run after one of its steps; `resume` continues it bit for bit.

    Attributes
    ----------
    table : SolverTable
        Bound.
    evaluation : int
        The next evaluation.
    x : Tensor [B, *S]
    anchor : Tensor [B, *S] or None
        Only where it is not `x`.
    history : Tensor [K, B, *S] or None
        The ring, in the order of the operator.
    rng : int64 Tensor [2] or [B, 3], or None
        The run's random stream, if it needs one.
    settings : mapping
        Arguments of `sample` that the continuation must share.
    guidance_scale : Tensor [1 or B], or None
        float64, or float32 from a device without it.

    Raises
    ------
    ValueError, TypeError
        If these do not go together.
    """

    table: SolverTable
    evaluation: int
    x: Tensor
    anchor: Tensor | None
    history: Tensor | None
    rng: Tensor | None
    settings: Mapping[str, Any]
    guidance_scale: Tensor | None

    def __post_init__(self) -> None:
        _validate(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file; an existing one is replaced at once, when everything is written.

        Examples
        --------
        >>> import tempfile, torch
        >>> from fastdiff_ops.schedules import FlowMatching
        >>> from fastdiff_ops.solvers import TrajectoryState, make_table, resume, sample
        >>> table, model = make_table("heun", FlowMatching(), [1.0, 0.6, 0.3, 0.0]), lambda x, t: -x
        >>> states = []
        >>> run = dict(prediction_type="velocity", callback=lambda step: states.append(step.state()))
        >>> x = sample(model, (2, 3), table, seed=1, **run)
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     states[1].save(file.name)
        ...     torch.equal(resume(model, file.name), x)
        True
        """
        from safetensors.torch import save_file

        target = Path(path)
        tensors = {name: value for name in _TENSORS if (value := getattr(self, name)) is not None}
        metadata = {
            "format": FORMAT,
            "table": self.table.to_json(),
            "evaluation": str(self.evaluation),
            "settings": json.dumps(dict(self.settings)),
            "order": _ORDERS[order(self.x)],
        }
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
        os.close(handle)
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str = "cpu") -> TrajectoryState:
        """Read a file that `save` wrote; ValueError when it is something else."""
        from safetensors import SafetensorError

        try:
            return cls._load(path, device)
        except SafetensorError as error:
            raise ValueError(
                f"`path` must be a safetensors file, got {os.fspath(path)!r}: {error}"
            ) from error
        except (KeyError, TypeError) as error:
            raise ValueError(f"`path` holds no complete state: {error}") from error

    @classmethod
    def _load(cls, path: str | os.PathLike[str], device: str) -> TrajectoryState:
        from safetensors import safe_open

        with safe_open(path, framework="pt", device=device) as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(
                    f"`path` must be a file with format {FORMAT!r}, got {metadata.get('format')!r}"
                )
            stored = set(file.keys())
            tensors: dict[str, Any] = {
                name: file.get_tensor(name) if name in stored else None for name in _TENSORS
            }
        memory_format = {name: value for value, name in _ORDERS.items()}[metadata["order"]]
        check_latents(tensors["x"], "x")
        tensors["x"] = tensors["x"].contiguous(memory_format=memory_format)
        return cls(
            table=SolverTable.from_json(metadata["table"]),
            evaluation=int(metadata["evaluation"]),
            settings=json.loads(metadata["settings"]),
            **tensors,
        )


SETTINGS = {"clip", "clip_value", "clip_quantile", "clip_cap", "guidance_batching", "inpainting"}


def _validate(state: TrajectoryState) -> None:
    table, e, x = state.table, state.evaluation, state.x
    if not isinstance(table, SolverTable):
        raise TypeError(f"`table` must be a SolverTable, got {type(table).__name__}")
    if not isinstance(e, int) or isinstance(e, bool):
        raise TypeError(f"`evaluation` must be an int, got {type(e).__name__}")
    if not 0 <= e <= len(table):
        raise ValueError(f"`evaluation` must lie in [0, {len(table)}], got {e}")
    check_latents(x, "x")
    if state.settings.keys() != SETTINGS:
        raise ValueError(f"`settings` must hold {sorted(SETTINGS)}, got {sorted(state.settings)}")
    before = table.anchor[e - 1] if e else "same"
    if before == "keep":
        raise ValueError(f"`evaluation` must be the first of a solver step, got {e}")
    shapes = {
        "anchor": tuple(x.shape) if before == "row" else None,
        "history": (table.n_hist, *x.shape) if e and table.n_hist else None,
    }
    for name, wanted in shapes.items():
        value = getattr(state, name)
        got = None if value is None else tuple(value.shape)
        if got != wanted:
            raise ValueError(f"`{name}` must have the shape {wanted} before evaluation {e}, got {got}")
    if (rng := state.rng) is not None:
        if rng.dtype != torch.int64 or tuple(rng.shape) not in ((2,), (x.shape[0], 3)):
            raise ValueError(
                f"`rng` must be int64 [2] or [{x.shape[0]}, 3], got {rng.dtype} {tuple(rng.shape)}"
            )
    elif state.settings["inpainting"] or (table.packed is not None and table.packed.noisy):
        raise ValueError("`rng` must be a tensor for a run that draws noise, got None")


_ORDERS = {
    torch.contiguous_format: "contiguous",
    torch.channels_last: "channels_last",
    torch.channels_last_3d: "channels_last_3d",
}
_TENSORS = ("x", "anchor", "history", "rng", "guidance_scale")
