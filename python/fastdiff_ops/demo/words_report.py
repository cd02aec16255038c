"""The word demo: words and tables onto the screen, pictures into a folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from fastdiff_ops._environment import pick_device, require_matplotlib
from fastdiff_ops.demo import pictures
from fastdiff_ops.demo.report import describe, one_thread
from fastdiff_ops.demo.timing import readable
from fastdiff_ops.demo.words import Dictionary, WordWeights, load_words, parse_pattern, spell
from fastdiff_ops.demo.words_experiments import (
    Entropies,
    SamplerRun,
    compare_samplers,
    draw_uniformly,
    evenness,
    infill,
    measure_entropies,
)

__all__ = ["WordsSettings", "format_completions", "format_entropies", "format_samplers", "run_words_demo"]

_WIDTH = 100  # of the lines of words


@dataclass(frozen=True)
class WordsSettings:
    """What the word demo does; the defaults take about 10 seconds on one core.

    Attributes
    ----------
    out : Path
        Folder of the pictures; made if need be.
    patterns : tuple of str
        Words to be completed, see `parse_pattern`.
    num_words : int
        Words that each sampler generates, and completions of each pattern.
    temperature : float
        Of all words.
    seed : int
        Of everything.
    device : str
        "auto", "cpu", "cuda" ...: where words are made.
    vocabulary, uniform_vocabulary : int
        Tokens of the two experiments on precision.
    steps : tuple of int
        Numbers of steps of ancestral sampling, on the curve and for our draws.
    float32_tokens : dict of int to int
        How many tokens are drawn in float32, by number of steps.
    our_tokens : int
        How many we draw for each number of steps.
    uniform_draws : int
        Draws of each histogram.
    """

    out: Path = Path("demo")
    patterns: tuple[str, ...] = ("s__ng", "c____er", "un*")
    num_words: int = 200
    temperature: float = 1.0
    seed: int = 0
    device: str = "auto"
    vocabulary: int = 50257
    uniform_vocabulary: int = 50258
    steps: tuple[int, ...] = (4, 16, 64, 256, 1024, 4096)
    float32_tokens: dict[int, int] = field(default_factory=lambda: {16: 200, 64: 250, 256: 100})
    our_tokens: int = 8192
    uniform_draws: int = 1000


def run_words_demo(settings: WordsSettings) -> list[Path]:
    """Generate, infill, compare, measure and draw; prints tables and returns the pictures' paths.

    Parameters
    ----------
    settings : WordsSettings
        What to do.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If a pattern is none, or the device is not there.
    """
    patterns = {pattern: parse_pattern(pattern) for pattern in settings.patterns}
    require_matplotlib()
    start = time.perf_counter()
    device = pick_device(settings.device)
    weights = load_words(device=device)
    settings.out.mkdir(parents=True, exist_ok=True)
    with one_thread(device):
        _words(settings, weights, patterns, device)
        written = _precision(settings)
    print(f"\n{time.perf_counter() - start:.0f} s on {describe(device)}; pictures:")
    for path in written:
        print(f"  {path}")
    return written


def format_samplers(runs: Sequence[SamplerRun]) -> str:
    """What samplers made and took, as a text table: a row a sampler."""
    width = max(len("sampler"), *(len(run.name) for run in runs))
    head = ("calls", "a word", "time", "real", "new", "distinct")
    lines = [f"{'sampler':<{width}}" + "".join(f"{title:>10}" for title in head) + "   the first words"]
    for run in runs:
        shares = "".join(f"{share:>10.1%}" for share in (run.real, run.new, run.distinct))
        lines.append(
            f"{run.name:<{width}}{run.calls:>10}{run.calls_a_word:>10.1f}{readable(run.seconds):>10}{shares}"
            f"   {' '.join(run.words[:4])}"
        )
    return "\n".join(lines)


def format_completions(tokens: Tensor, dictionary: Dictionary) -> str:
    """Completions by frequency, those that are no words in brackets, cut to a line."""
    real = dict(zip(spell(tokens), dictionary.real(tokens).tolist(), strict=True))
    text = ""
    for word, count in Counter(spell(tokens)).most_common():
        part = (word if real[word] else f"({word})") + (f" {count}" if count > 1 else "")
        if len(text) + len(part) + 2 > _WIDTH:
            return text + ", ..."
        text += f", {part}" if text else part
    return text


def format_entropies(entropies: Entropies) -> str:
    """Mean -log p(token) as a text table: a row a number of steps."""
    lines = [f"{'steps':<14}{'float32, predicted':>20}{'float32, drawn':>20}{'ours':>20}"]
    for n, predicted in zip(entropies.steps, entropies.predicted, strict=True):
        cells = [
            f"{m[n].mean:.2f} +- {m[n].error:.2f}" if n in m else "-"
            for m in (entropies.float32, entropies.ours)
        ]
        lines.append(f"{n:<14}{predicted:>20.2f}" + "".join(f"{cell:>20}" for cell in cells))
    first = entropies.first_hitting
    lines.append(f"{'first-hitting':<14}{'':>40}{f'{first.mean:.2f} +- {first.error:.2f}':>20}")
    return "\n".join(lines)


def _words(
    settings: WordsSettings, weights: WordWeights, patterns: dict[str, Tensor], device: torch.device
) -> None:
    """Print generated and completed words, and what each sampler took."""
    with tqdm(total=6 + len(patterns), desc="words", unit="run") as progress:
        runs = compare_samplers(
            weights,
            settings.num_words,
            seed=settings.seed,
            temperature=settings.temperature,
            device=device,
            progress=progress.update,
        )
        filled = {}
        for pattern, tokens in patterns.items():
            filled[pattern] = infill(
                weights,
                tokens,
                settings.num_words,
                seed=settings.seed,
                temperature=settings.temperature,
                device=device,
            )
            progress.update()
    print(f"\nWords from the embedded model ({runs[0].name})\n")
    lines = [""]
    for word in runs[0].words:
        if len(lines[-1]) + len(word) + 1 > _WIDTH:
            lines.append("")
        lines[-1] += f"{word} "
    print("\n".join(line.rstrip() for line in lines[:6]))
    print(f"\nCompleted {settings.num_words} times (how often; in brackets: not in the dictionary)\n")
    for pattern, tokens in filled.items():
        share = float(weights.dictionary.real(tokens).double().mean())
        print(f"  {pattern:<13} {share:>5.0%} words: {format_completions(tokens, weights.dictionary)}")
    print(
        f"\n{settings.num_words} words by each sampler: network calls, for all and for a word alone; time, "
        "network\nincluded; shares of real words, of those that training did not show, of different words\n"
    )
    print(format_samplers(runs))


def _precision(settings: WordsSettings) -> list[Path]:
    """Measure what low precision does to draws, print it and draw it."""
    total = len(settings.float32_tokens) + len(settings.steps) + 2
    with tqdm(total=total, desc="draws", unit="measurement") as progress:
        entropies = measure_entropies(
            settings.vocabulary,
            settings.steps,
            settings.float32_tokens,
            settings.our_tokens,
            settings.seed,
            progress.update,
        )
        drawn = draw_uniformly(settings.uniform_vocabulary, settings.uniform_draws, settings.seed)
        progress.update()
    print(
        f"\nMean -log p(token) of {settings.vocabulary} tokens with p ~ 1 / rank, in nats; right is "
        f"{entropies.exact:.2f}.\nfloat32: one draw a step from tokens and mask, as in public code\n"
    )
    print(format_entropies(entropies))
    print(
        f"\nMean of token / vocabulary, {settings.uniform_draws} draws from {settings.uniform_vocabulary} "
        "equal logits; right is 0.500\n"
    )
    for name, tokens in drawn.items():
        mean = evenness(tokens, settings.uniform_vocabulary)
        print(f"  {name:<22} {mean.mean:.3f} +- {mean.error:.3f}")
    entropy, precision = settings.out / "token_entropy.png", settings.out / "low_precision.png"
    pictures.draw_entropies(entropy, entropies, settings.vocabulary)
    pictures.draw_precision(precision, drawn, settings.uniform_vocabulary)
    return [entropy, precision]
