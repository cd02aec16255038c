#!/usr/bin/env python3
"""Train the demo's word model and write its weights; their metadata says how to repeat the run.

Needs lists of words: Debian's packages scowl and wamerican-small, or files of yours, one word a line. Ten
minutes on one core:

    OMP_NUM_THREADS=1 python tools/train_words.py

Words of 3 to 12 small letters are taken; one in twenty is held out. The loss is time-agnostic: of the 12
tokens of a word n are masked, n uniform in 1..12 and stratified over the batch, and the cross-entropy of the
masked tokens is averaged over them. 12 times its mean bounds -log p(word) from above (Zheng et al., arXiv
2409.02908, section 3.2). The stored weights are the trained ones' moving average, as float16.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from fastdiff_ops.demo.words import (
    LENGTH,
    MASK,
    SHORTEST,
    WORDS_PATH,
    Dictionary,
    WordModel,
    WordModelConfig,
    encode,
)
from fastdiff_ops.masked import first_hitting_sample, log_likelihood
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

FOLDER = Path("/usr/share/dict/scowl")  # the 10000 commonest words or so
DEBIAN_DICTIONARY = Path("/usr/share/dict/american-english-small")
DEBIAN_LISTS = [FOLDER / f"{kind}-words.{size}" for size in (10, 20) for kind in ("english", "american")]
# The lists whose files together have this SHA-256; others are named by their files.
KNOWN_LISTS = {
    "33c1b06b65c0e375ad2b4fd4c57742d431f9f6b031b0d1b53d69a66caac54c92": (
        "SCOWL (Debian scowl 2020.12.07-2), english-words and american-words, sizes 10 and 20"
    ),
    "a6e2bc32526c38fa082ffbdb527ad9999e41b0a712d06e8415244068454d4d55": (
        "SCOWL (Debian wamerican-small 2020.12.07-2), american-english-small"
    ),
}
SCOWL = (
    "Copyright 2000-2011 by Kevin Atkinson. Permission to use, copy, modify, distribute and sell these "
    "word lists, the associated scripts, the output created from the scripts, and its documentation for "
    "any purpose is hereby granted without fee, provided that the above copyright notice appears in all "
    "copies and that both that copyright notice and this permission notice appear in supporting "
    "documentation. Kevin Atkinson makes no representations about the suitability of this array for any "
    'purpose. It is provided "as is" without express or implied warranty.'
)


def read_lists(paths: Sequence[Path]) -> tuple[Tensor, str]:
    """Return the words of files as tokens ``[N, 12]``, in alphabetical order, and the lists' name."""
    for path in paths:
        if not path.is_file():
            raise SystemExit(f"no word list at {path}: apt-get install scowl wamerican-small, or name others")
    content = b"".join(path.read_bytes() for path in paths)
    kept = re.compile(rf"[a-z]{{{SHORTEST},{LENGTH}}}")
    words = sorted({word for word in content.decode().split() if kept.fullmatch(word)})
    names = ", ".join(path.name for path in paths)
    return encode(words), KNOWN_LISTS.get(hashlib.sha256(content).hexdigest(), names)


def mask_some(words: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mask n tokens of each word, n stratified over the batch; return what is masked and 1 / n."""
    batch = len(words)
    n = 1 + (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch * LENGTH
    n = n.long().clamp_(max=LENGTH)[:, None]  # a sum in float32 may round up to LENGTH + 1
    rank = torch.rand(batch, LENGTH, generator=generator).argsort(1).argsort(1)
    return rank < n, 1.0 / n


def train(args: argparse.Namespace, words: Tensor) -> WordModel:
    """Train on `words`; returns the averaged model."""
    generator = torch.Generator().manual_seed(args.seed)
    torch.manual_seed(args.seed)  # the initial weights
    model = WordModel(WordModelConfig())
    ema = copy.deepcopy(model)
    slow: list[Tensor] = list(ema.parameters())
    fast: list[Tensor] = list(model.parameters())
    optimizer = torch.optim.AdamW(fast, lr=args.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    average = math.log(model.config.vocabulary)
    with tqdm(range(args.steps), desc="training", unit="step", mininterval=1.0) as progress:
        for i in progress:
            # A short warm-up, then a cosine down to zero.
            optimizer.param_groups[0]["lr"] = (
                args.lr * min(1.0, (i + 1) / 200) * 0.5 * (1 + math.cos(math.pi * i / args.steps))
            )
            batch = words[torch.randint(len(words), (args.batch,), generator=generator)]
            masked, weight = mask_some(batch, generator)
            logits = model(batch.masked_fill(masked, MASK))
            cross_entropy = F.cross_entropy(logits.transpose(1, 2), batch, reduction="none")
            loss = (cross_entropy * masked * weight).sum() / len(batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(fast, 1.0)
            optimizer.step()
            decay = min(args.ema, (1 + i) / (10 + i))
            with torch.no_grad():
                torch._foreach_lerp_(slow, fast, 1 - decay)
            average += 0.01 * (loss.item() - average)
            progress.set_postfix(loss=f"{average:.4f}", refresh=False)
    return ema.eval()


def judge(model: WordModel, dictionary: Dictionary, n: int) -> dict[str, str]:
    """Bounds of -log p in nats a word, and what 1000 generated words are."""
    bounds = {}
    for name, held_out in (("train", False), ("held_out", True)):
        words = dictionary.tokens(held_out)
        words = words[torch.randperm(len(words), generator=torch.Generator().manual_seed(0))[:n]]
        bound = -log_likelihood(model, words, mask_id=MASK, num_samples=2 * LENGTH, seed=0)
        bounds[f"nll_{name}"] = f"{float(bound.mean()):.4f}"
    made = first_hitting_sample(model, torch.full((n, LENGTH), MASK), mask_id=MASK, seed=0)
    shares = {
        "words": dictionary.real(made),
        "words_of_training": dictionary.shown(made),
        "words_held_out": torch.isin(dictionary.number(made), dictionary.held_out),
    }
    distinct = len(dictionary.number(made).unique()) / n
    return {
        **bounds,
        **{f"generated_{name}": f"{float(share.float().mean()):.4f}" for name, share in shares.items()},
        "generated_distinct": f"{distinct:.4f}",
    }


def main() -> None:
    """Parse the command line, train, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=10000, help="optimizer steps (default %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="words per step (default %(default)s)")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate (default %(default)s)")
    parser.add_argument(
        "--ema", type=float, default=0.999, help="decay of the averaged weights (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and data (default %(default)s)")
    parser.add_argument(
        "--words",
        type=Path,
        nargs="+",
        default=DEBIAN_LISTS,
        metavar="FILE",
        help="to train on, one word a line (default: the commonest of Debian's package scowl)",
    )
    parser.add_argument(
        "--dictionary",
        type=Path,
        default=DEBIAN_DICTIONARY,
        metavar="FILE",
        help="further words that count as real (default: Debian's package wamerican-small)",
    )
    parser.add_argument(
        "--judged", type=int, default=1000, help="words in each figure of the metadata (default %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=WORDS_PATH, help="weights file (default: the package's own)"
    )
    args = parser.parse_args()

    words, name = read_lists(args.words)
    judging, judging_name = read_lists([args.dictionary])
    if len(words) < 20:
        raise SystemExit(
            f"--words have {len(words)} words of {SHORTEST} to {LENGTH} small letters; 20 are needed"
        )
    mixed = words[torch.randperm(len(words), generator=torch.Generator().manual_seed(args.seed))]
    held_out, shown = mixed[: len(mixed) // 20], mixed[len(mixed) // 20 :]
    model = train(args, shown)
    state = {key: value.half().contiguous() for key, value in model.state_dict().items()}
    model.load_state_dict(state)  # what is stored is what is judged
    others = Dictionary.number(judging)
    others = others[~torch.isin(others, Dictionary.number(words))]
    train_numbers, held_out_numbers = (Dictionary.number(part).sort().values for part in (shown, held_out))
    dictionary = Dictionary(train_numbers, held_out_numbers, others)
    kept_out = ("out", "words", "dictionary", "judged")
    options = {k: v for k, v in vars(args).items() if k not in kept_out}
    metadata = {
        "command": "OMP_NUM_THREADS=1 python tools/train_words.py "
        + " ".join(f"--{k} {v}" for k, v in options.items()),
        "config": json.dumps(model.config.to_dict()),
        "parameters": str(sum(p.numel() for p in model.parameters())),
        "seed": str(args.seed),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "word_list": name,
        "dictionary": judging_name,
        "words": f"{len(shown)} shown, {len(held_out)} held out, {len(others)} more in the dictionary",
        **({"word_list_copyright": SCOWL} if name in KNOWN_LISTS.values() else {}),
        **judge(model, dictionary, args.judged),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    lists = {f"words.{key}": value for key, value in vars(dictionary).items()}
    save_file({**state, **lists}, args.out, metadata)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")
    for key in sorted(metadata):
        if key.startswith(("nll", "generated")):
            print(f"{key:>28} {metadata[key]}")


if __name__ == "__main__":
    main()
