"""The word model and its demo: weights are as their file says, words fit patterns, the report is true."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from fastdiff_ops.cli import main
from fastdiff_ops.demo.weights import WEIGHTS_PATH
from fastdiff_ops.demo.words import (
    LENGTH,
    MASK,
    PAD,
    WORDS_PATH,
    Dictionary,
    WordModel,
    WordWeights,
    encode,
    load_words,
    parse_pattern,
    spell,
)
from fastdiff_ops.demo.words_experiments import (
    SamplerRun,
    compare_samplers,
    draw_uniformly,
    evenness,
    infill,
    measure_entropies,
    predicted_float32,
    zipf,
)
from fastdiff_ops.demo.words_report import (
    WordsSettings,
    format_completions,
    format_samplers,
    run_words_demo,
)
from fastdiff_ops.masked import as_model, first_hitting_sample, log_likelihood
from fastdiff_ops.masked.numerics import truncated_gumbel_law

CPU = torch.device("cpu")
SMALL = {
    "num_words": 8,
    "vocabulary": 500,
    "uniform_vocabulary": 600,
    "steps": (4, 16),
    "float32_tokens": {4: 20},
    "our_tokens": 256,
    "uniform_draws": 50,
}


@pytest.fixture(scope="module")
def weights() -> WordWeights:
    return load_words()


# ---- tokens


def test_words_and_tokens_are_inverse() -> None:
    words = ["cab", "z", "abcdefghijkl"]
    tokens = encode(words)
    assert tokens.shape == (3, LENGTH)
    assert tokens[1].tolist() == [25] + [PAD] * 11
    assert spell(tokens) == words
    for wrong in ("", "abcdefghijklm", "Cab", "it's"):
        with pytest.raises(ValueError, match="letters from a to z"):
            encode([wrong])


def test_patterns() -> None:
    assert parse_pattern("s__ng").tolist() == [18, MASK, MASK, 13, 6] + [PAD] * 7
    assert parse_pattern("un*").tolist() == [20, 13] + [MASK] * 10
    assert parse_pattern("*").tolist() == [MASK] * LENGTH
    assert spell(parse_pattern("abcdefghijk_")[None]) == ["abcdefghijk_"]
    for wrong, why in (("sting", "nothing"), ("a" * 13, "12"), ("S__", "a to z"), ("a*b", "a to z")):
        with pytest.raises(ValueError, match=why):
            parse_pattern(wrong)
    with pytest.raises(ValueError, match="no room"):
        parse_pattern("abcdefghijkl*")


# ---- weights


def test_weights_are_small() -> None:
    assert WORDS_PATH.stat().st_size < 2_000_000


def test_weights_say_how_they_were_made(weights: WordWeights) -> None:
    metadata, dictionary = weights.metadata, weights.dictionary
    assert metadata["parameters"] == str(sum(p.numel() for p in weights.model.parameters()))
    assert "SCOWL" in metadata["word_list"]
    assert "Kevin Atkinson" in metadata["word_list_copyright"]
    words = shlex.split(metadata["command"])
    assert "tools/train_words.py" in words
    assert words[words.index("--seed") + 1] == metadata["seed"]
    assert metadata["words"].startswith(
        f"{len(dictionary.train)} shown, {len(dictionary.held_out)} held out, {len(dictionary.others)} more"
    )


def test_dictionary(weights: WordWeights) -> None:
    dictionary = weights.dictionary
    parts = (dictionary.train, dictionary.held_out, dictionary.others)
    assert len(torch.cat(parts).unique()) == sum(map(len, parts))
    assert 15 < len(dictionary.train) / len(dictionary.held_out) < 25
    tokens = dictionary.tokens(held_out=True)
    assert torch.equal(Dictionary.number(tokens), dictionary.held_out)
    words = spell(tokens)
    assert all(3 <= len(w) <= 12 and w.isalpha() for w in words)
    known = encode(["about", "house", "sling", "qzxwv"])
    assert dictionary.real(known).tolist() == [True, True, True, False]
    assert dictionary.new(known).tolist() == [False, False, True, False]
    assert dictionary.new(tokens[:5]).all()
    assert not dictionary.shown(tokens[:5]).any()
    assert not dictionary.real(torch.full((1, LENGTH), MASK)).any()
    dotted = torch.tensor([[0, PAD, 1] + [PAD] * 9])
    assert not dictionary.real(dotted).any()
    assert spell(dotted) == ["a.b"]


@pytest.mark.parametrize("held_out", [False, True])
def test_weights_reach_the_bound_that_they_claim(weights: WordWeights, held_out: bool) -> None:
    words = weights.dictionary.tokens(held_out)
    words = words[torch.randperm(len(words), generator=torch.Generator().manual_seed(0))[:250]]
    bound = -log_likelihood(weights.model, words, mask_id=MASK, num_samples=12, seed=1)
    claimed = float(weights.metadata["nll_held_out" if held_out else "nll_train"])
    assert abs(float(bound.mean()) - claimed) < 4 * float(bound.std()) / len(words) ** 0.5
    counts = torch.nn.functional.one_hot(weights.dictionary.tokens()).double().mean(0)
    independent = -float(torch.special.xlogy(counts, counts).sum())  # nats of a model that sees no context
    assert claimed < independent - 3


def test_training_is_a_function_of_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).parents[1] / "tools/train_words.py"
    listed = tmp_path / "list"
    words = [a + b + c for a in "abcd" for b in "ef" for c in "xyz"]
    listed.write_text("\n".join(["Proper", "it's", "ab", *words]))
    further = tmp_path / "further"
    further.write_text("aex\nabd\nabe\n")
    lists = ["--words", str(listed), "--dictionary", str(further)]
    contents = []
    for run in range(2):
        out = tmp_path / f"{run}.safetensors"
        options = ["--steps", "2", "--batch", "8", "--seed", "3", "--judged", "4"]
        monkeypatch.setattr("sys.argv", [str(script), *options, "--out", str(out), *lists])
        exec(compile(script.read_text(), str(script), "exec"), {"__name__": "__main__"})
        contents.append(load_words(out))
    first, second = (dict(c.model.state_dict()) for c in contents)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert contents[0].metadata == contents[1].metadata
    assert contents[0].metadata["word_list"] == "list"
    assert len(contents[0].dictionary.train) + len(contents[0].dictionary.held_out) == 24
    assert spell(contents[0].dictionary.others[:, None] // 27 ** torch.arange(11, -1, -1) % 27) == [
        "abd",
        "abe",
    ]


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train_words"):
        load_words(tmp_path / "absent.safetensors")
    with pytest.raises(ValueError, match="no word model"):
        load_words(WEIGHTS_PATH)


def test_every_parameter_of_the_model_is_trained() -> None:
    torch.manual_seed(0)
    model = WordModel()
    model(torch.randint(0, MASK + 1, (64, LENGTH))).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


# ---- samples


def test_words_are_better_than_chance(weights: WordWeights) -> None:
    masks = torch.full((100, LENGTH), MASK)
    tokens = first_hitting_sample(weights.model, masks, mask_id=MASK, seed=0)
    words = spell(tokens)
    assert len(set(words)) > 90
    assert float(weights.dictionary.real(tokens).float().mean()) > 0.02  # of random letters: 1e-4
    assert sum("." not in w for w in words) > 90  # padding at the end only


def test_head_and_backbone_are_the_model(weights: WordWeights) -> None:
    masks = torch.full((3, LENGTH), MASK)
    parts = as_model(backbone=weights.model.backbone, head=weights.model.head)
    whole = first_hitting_sample(weights.model, masks, mask_id=MASK, seed=1)
    assert torch.equal(whole, first_hitting_sample(parts, masks, mask_id=MASK, seed=1))


@pytest.mark.parametrize("pattern", ["s__ng", "_o_", "un*"])
def test_completions_keep_the_letters(weights: WordWeights, pattern: str) -> None:
    given = parse_pattern(pattern)
    tokens = infill(weights, given, 20, seed=0, temperature=1.0, device=CPU)
    kept = given != MASK
    assert torch.equal(tokens[:, kept], given[kept].expand(20, -1))
    assert not (tokens == MASK).any()


def test_samplers_are_compared(weights: WordWeights) -> None:
    runs = {run.name: run for run in compare_samplers(weights, 5, seed=2, temperature=1.0, device=CPU)}
    assert len(runs) == 6
    first = runs["first-hitting, exact"]
    assert (first.calls, first.calls_a_word) == (LENGTH, LENGTH)
    assert runs["parallel, 3 calls"].calls == 3
    assert runs["ancestral, 12 steps"].calls_a_word < LENGTH
    assert all(len(run.words) == 5 and 0 < run.distinct <= 1 and run.new <= run.real for run in runs.values())
    again = compare_samplers(weights, 5, seed=2, temperature=1.0, device=CPU)
    assert [run.words for run in again] == [run.words for run in runs.values()]


# ---- precision


def test_predicted_loss_of_one_step_is_that_of_one_draw() -> None:
    p = zipf(2000)
    law = truncated_gumbel_law(p, 16)
    one, many = predicted_float32(p, (1, 64), bits=16)
    assert one == pytest.approx(float(-(law * p.log()).sum()), rel=1e-9)
    assert many < one - 0.1


def test_predicted_loss_agrees_with_every_step_computed() -> None:
    p, n, bits = zipf(300), 40, 14
    left, total = 1.0, 0.0
    for i in range(n):
        q = 1 / (n - i)
        law = truncated_gumbel_law(torch.cat([q * p, p.new_tensor([1 - q])]), bits)[:-1]
        total += left * float(-(law * p.log()).sum())
        left *= 1 - float(law.sum())
    assert left == pytest.approx(0, abs=1e-9)
    assert predicted_float32(p, (n,), bits)[0] == pytest.approx(total, abs=2e-3)


def test_ours_have_the_entropy_of_the_law() -> None:
    found = measure_entropies(400, (8, 64), {8: 200}, 4096, seed=3)
    for mean in (*found.ours.values(), *found.float32.values(), found.first_hitting):
        assert abs(mean.mean - found.exact) < 4 * mean.error
    assert found.first_hitting.error < 0.04


def test_low_precision_draws_the_first_tokens() -> None:
    vocabulary = 50258
    drawn = {
        name: evenness(tokens, vocabulary) for name, tokens in draw_uniformly(vocabulary, 60, seed=0).items()
    }
    low, _, ours = drawn.values()
    assert low.mean < 0.02
    assert abs(ours.mean - 0.5) < 4 * 0.2887 / 60**0.5


# ---- the whole


def test_tables_of_the_report(weights: WordWeights) -> None:
    tokens = encode(["house", "house", "hxuse"])
    assert format_completions(tokens, weights.dictionary) == "house 2, (hxuse)"
    run = SamplerRun("one", ["a", "b"], 12, 3.25, 0.5, 0.25, 0.125, 1.0)
    row = format_samplers([run]).splitlines()[1].split()
    assert row == ["one", "12", "3.2", "500", "ms", "25.0%", "12.5%", "100.0%", "a", "b"]


def test_demo_writes_pictures_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    written = run_words_demo(WordsSettings(out=tmp_path / "new", device="cpu", patterns=("c_t",), **SMALL))
    assert {path.name for path in written} == {"token_entropy.png", "low_precision.png"}
    for path in written:
        picture = plt.imread(path)
        assert min(picture.shape[:2]) > 150, path
        assert len(np.unique(picture[..., 0])) > 20, path
    assert not plt.get_fignums()
    text = capsys.readouterr().out
    for word in ("c_t", "words:", "first-hitting, exact", "ancestral, 32 steps", "first-hitting", "bfloat16"):
        assert word in text


def test_command_passes_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[WordsSettings] = []
    monkeypatch.setattr("fastdiff_ops.demo.words_report.run_words_demo", seen.append)
    options = [
        "--out",
        "x",
        "--infill",
        "s__ng",
        "--infill",
        "un*",
        "--num-words",
        "7",
        "--temperature",
        "0.5",
    ]
    assert main(["masked-demo", *options, "--seed", "9", "--device", "cpu"]) == 0
    patterns = ("s__ng", "un*")
    expected = WordsSettings(
        out=Path("x"), patterns=patterns, num_words=7, temperature=0.5, seed=9, device="cpu"
    )
    assert seen == [expected]
    assert main(["masked-demo"]) == 0
    assert seen[1] == WordsSettings()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--infill", "sting"], 2, "nothing to be found"),
        (["--infill", "S__"], 2, "letters from a to z"),
        (["--num-words", "0"], 2, "positive integer"),
        (["--temperature", "-1"], 2, "number >= 0"),
        (["--temperature", "nan"], 2, "number >= 0"),
        (["--device", "quantum"], 1, "quantum"),
    ],
)
def test_command_says_what_is_wrong(
    options: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["masked-demo", "--out", str(tmp_path / "out"), *options]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
