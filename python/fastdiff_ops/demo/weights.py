"""The embedded weights: where they are, how they were made, how good they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from fastdiff_ops.demo.data import render
from fastdiff_ops.demo.model import DigitModel, DigitModelConfig
from fastdiff_ops.schedules import VPCosine

__all__ = ["SCHEDULE", "WEIGHTS_PATH", "Weights", "evaluation_loss", "load_weights", "noised", "read_weights"]

SCHEDULE = VPCosine()
WEIGHTS_PATH = Path(__file__).parent / "digits.safetensors"


@dataclass(frozen=True)
class Weights:
    """A trained digit model and what its file says about it.

    Attributes
    ----------
    model : DigitModel
        In evaluation mode, parameters without gradients.
    metadata : dict of str to str
        The training command, seed, data, loss, schedule and versions.
    """

    model: DigitModel
    metadata: dict[str, str]


def load_weights(path: str | Path = WEIGHTS_PATH, device: str | torch.device = "cpu") -> Weights:
    """Load a digit model from a safetensors file written by ``tools/train_digits.py``.

    Parameters
    ----------
    path : str or Path
        The file; by default the one inside the package.
    device : str or torch.device
        Where the model shall live. Its parameters are float32, whatever the file holds.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no digit model.
    """
    state, metadata = read_weights(path, "digit model", "tools/train_digits.py")
    model = DigitModel(DigitModelConfig(**json.loads(metadata["config"])))
    model.load_state_dict({name: value.float() for name, value in state.items()})
    return Weights(model.to(device).eval().requires_grad_(False), metadata)


def read_weights(path: str | Path, what: str, tool: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of an embedded model's file.

    Parameters
    ----------
    path : str or Path
        The file.
    what, tool : str
        What it should be, and what makes it: for messages.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no such model: it has no "config", or that of another model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; {tool} makes them")
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    if "config" not in metadata:
        raise ValueError(f"{path} is no {what}: its metadata has no 'config'")
    if tool not in metadata.get("command", tool):
        raise ValueError(f"{path} is no {what}: it was made by {metadata['command']!r}")
    return state, metadata


def noised(x0: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Noise pictures ``[B, ...]`` to times ``[B]``; return them and the v that the model shall predict."""
    shape = (-1,) + (1,) * (x0.dim() - 1)
    alpha = SCHEDULE.alpha(t).to(x0).reshape(shape)
    sigma = SCHEDULE.sigma(t).to(x0).reshape(shape)
    return alpha * x0 + sigma * noise, alpha * noise - sigma * x0


@torch.inference_mode()
def evaluation_loss(model: DigitModel, images: Tensor, labels: Tensor) -> float:
    """Mean squared error of the predicted velocity on upright pictures, with fixed times and noise.

    Parameters
    ----------
    model : DigitModel
        The model to judge.
    images, labels : Tensor
        As :func:`fastdiff_ops.demo.data.load_digits` returns them.
    """
    generator = torch.Generator().manual_seed(2024)
    x0 = render(images)
    t = (torch.arange(len(x0)) + 0.5) / len(x0) * SCHEDULE.T
    t = t[torch.randperm(len(x0), generator=generator)]
    x, v = noised(x0, t, torch.randn(x0.shape, generator=generator))
    prediction = torch.cat(
        [model(*part) for part in zip(x.split(256), t.split(256), labels.split(256), strict=True)]
    )
    return float((prediction - v).square().mean())
