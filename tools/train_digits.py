#!/usr/bin/env python3
"""Train the demo's digit model and write its weights; their metadata says how to repeat the run.

Needs scikit-learn (for the pictures). About ten minutes on one core:

    OMP_NUM_THREADS=1 python tools/train_digits.py

The loss is the mean squared error of the velocity v = alpha eps - sigma x0 under the VP cosine schedule, at
times stratified over [0, T]. One label in ten is replaced by the null class, for classifier-free guidance (Ho
and Salimans, arXiv 2207.12598). The stored weights are the trained ones' moving average, as float16.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from pathlib import Path

import torch
from fastdiff_ops.demo.data import load_digits, random_affine, render
from fastdiff_ops.demo.model import DigitModel, DigitModelConfig
from fastdiff_ops.demo.weights import SCHEDULE, WEIGHTS_PATH, evaluation_loss, noised
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm


def ema_update(ema: DigitModel, model: DigitModel, decay: float) -> None:
    """Move the parameters of `ema` towards those of `model`."""
    with torch.no_grad():
        for slow, fast in zip(ema.parameters(), model.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)


def train(args: argparse.Namespace, images: Tensor, labels: Tensor) -> DigitModel:
    """Train on random small deformations of `images`; returns the averaged model."""
    generator = torch.Generator().manual_seed(args.seed)
    torch.manual_seed(args.seed)  # the initial weights
    model = DigitModel(DigitModelConfig())
    ema = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=0.01)
    null = model.config.n_classes
    average = 1.0
    with tqdm(range(args.steps), desc="training", unit="step", mininterval=1.0) as progress:
        for i in progress:
            # A short warm-up, then a cosine down to zero.
            optimizer.param_groups[0]["lr"] = (
                args.lr * min(1.0, (i + 1) / 100) * 0.5 * (1 + math.cos(math.pi * i / args.steps))
            )
            rows = torch.randint(len(images), (args.batch,), generator=generator)
            x0 = render(images[rows], affine=random_affine(args.batch, generator))
            y = labels[rows].clone()
            y[torch.rand(args.batch, generator=generator) < args.drop_label] = null
            t = (
                (torch.arange(args.batch) + torch.rand(args.batch, generator=generator))
                / args.batch
                * SCHEDULE.T
            )
            x, v = noised(x0, t, torch.randn(x0.shape, generator=generator))
            loss = (model(x, t, y) - v).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            ema_update(ema, model, min(args.ema, (1 + i) / (10 + i)))
            average += 0.01 * (loss.item() - average)
            progress.set_postfix(loss=f"{average:.4f}", refresh=False)
    return ema


def main() -> None:
    """Parse the command line, train, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=3500, help="optimizer steps (default %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="pictures per step (default %(default)s)")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate (default %(default)s)")
    parser.add_argument(
        "--ema", type=float, default=0.999, help="decay of the averaged weights (default %(default)s)"
    )
    parser.add_argument(
        "--drop-label", type=float, default=0.1, help="share of null labels (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and data (default %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=WEIGHTS_PATH, help="weights file (default: the package's own)"
    )
    args = parser.parse_args()

    images, labels = load_digits()
    model = train(args, images, labels)
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    model.load_state_dict(state)  # what is stored is what is judged
    options = {k: v for k, v in vars(args).items() if k != "out"}
    metadata = {
        "command": "OMP_NUM_THREADS=1 python tools/train_digits.py "
        + " ".join(f"--{k.replace('_', '-')} {v}" for k, v in options.items()),
        "config": json.dumps(model.config.to_dict()),
        "data": "scikit-learn load_digits: UCI optical recognition of handwritten digits, CC BY 4.0",
        "loss": f"{evaluation_loss(model.eval(), images, labels):.6f}",
        "parameters": str(sum(p.numel() for p in model.parameters())),
        "prediction_type": "v",
        "schedule": json.dumps(SCHEDULE.to_dict()),
        "seed": str(args.seed),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, args.out, metadata)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, evaluation loss {metadata['loss']}")


if __name__ == "__main__":
    main()
