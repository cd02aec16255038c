"""The embedded word model: a small masked diffusion model of English words, letter by letter.

The network is plain PyTorch and knows nothing of this library, as the users' networks do: the samplers of
`fastdiff_ops.masked` call it as ``model(tokens)``. It is trained by ``tools/train_words.py``.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdiff_ops.demo.weights import read_weights

__all__ = [
    "BLANK",
    "LENGTH",
    "MASK",
    "PAD",
    "WORDS_PATH",
    "Dictionary",
    "WordModel",
    "WordModelConfig",
    "WordWeights",
    "encode",
    "load_words",
    "parse_pattern",
    "spell",
]

LENGTH = 12  # tokens of a word, padded at the end
PAD, MASK = 26, 27  # after the letters; the mask lies behind the network's vocabulary
BLANK = "_"
SHORTEST = 3  # letters of a word of the training
WORDS_PATH = Path(__file__).parent / "words.safetensors"

_LETTERS = {letter: i for i, letter in enumerate(string.ascii_lowercase)}
_SIGNS = string.ascii_lowercase + "." + BLANK


def encode(words: Iterable[str]) -> Tensor:
    """Turn words of 1 to 12 letters a to z into tokens, int64 ``[N, 12]``.

    Raises
    ------
    ValueError
        If a word has other signs, or the wrong length.

    Examples
    --------
    >>> encode(["cab"])
    tensor([[ 2,  0,  1, 26, 26, 26, 26, 26, 26, 26, 26, 26]])
    """
    rows = []
    for word in words:
        if not 1 <= len(word) <= LENGTH or any(letter not in _LETTERS for letter in word):
            raise ValueError(f"a word must be 1 to {LENGTH} letters from a to z, got {word!r}")
        rows.append([_LETTERS[letter] for letter in word] + [PAD] * (LENGTH - len(word)))
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, LENGTH)


def spell(tokens: Tensor) -> list[str]:
    """Turn tokens ``[N, 12]`` into text, without the padding at the end.

    A padding token before a letter, which no word has, becomes a dot; a mask becomes an underscore.

    Examples
    --------
    >>> spell(torch.tensor([[2, 0, 1, 26, 26], [2, 26, 1, 27, 26]]))
    ['cab', 'c.b_']
    """
    return ["".join(_SIGNS[token] for token in row).rstrip(".") for row in tokens.tolist()]


def parse_pattern(pattern: str) -> Tensor:
    """Turn a pattern into tokens, int64 ``[12]``: letters stay, an underscore is a letter to be found.

    A star at the end stands for any ending; without it the word is as long as the pattern.

    Raises
    ------
    ValueError
        If the pattern has other signs, is too long, or leaves nothing to be found.

    Examples
    --------
    >>> spell(parse_pattern("s__ng")[None]), spell(parse_pattern("un*")[None])
    (['s__ng'], ['un__________'])
    """
    stem, open_end = (pattern[:-1], True) if pattern.endswith("*") else (pattern, False)
    if len(stem) > LENGTH or any(sign not in _LETTERS and sign != BLANK for sign in stem):
        raise ValueError(
            f"a pattern must be up to {LENGTH} letters from a to z and underscores, and perhaps a star at "
            f"the end, got {pattern!r}"
        )
    if not open_end and BLANK not in stem:
        raise ValueError(
            f"pattern {pattern!r} leaves nothing to be found: put underscores where letters are missing"
        )
    tokens = [MASK if sign == BLANK else _LETTERS[sign] for sign in stem]
    if open_end and len(stem) == LENGTH and BLANK not in stem:
        raise ValueError(
            f"pattern {pattern!r} leaves no room for an ending: words have {LENGTH} letters at most"
        )
    return torch.tensor(tokens + [MASK if open_end else PAD] * (LENGTH - len(stem)), dtype=torch.int64)


@dataclass(frozen=True)
class WordModelConfig:
    """Sizes of a :class:`WordModel`.

    Attributes
    ----------
    length : int
        Tokens of a word.
    vocabulary : int
        Tokens that can be predicted: letters and padding. The mask is the next number.
    width, layers, heads, hidden : int
        Of the transformer: length of a vector, number of layers, heads of the attention, inner width of the
        feed-forward part.
    """

    length: int = LENGTH
    vocabulary: int = PAD + 1
    width: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 256

    def to_dict(self) -> dict[str, Any]:
        """Return the sizes as a dictionary that JSON can hold."""
        return asdict(self)


class _Layer(nn.Module):
    """Attention over all letters and a feed-forward part, both residual and normalised at their input."""

    def __init__(self, config: WordModelConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_mlp = nn.LayerNorm(width)
        self.up = nn.Linear(width, config.hidden)
        self.down = nn.Linear(config.hidden, width)
        for last in (self.out, self.down):
            nn.init.normal_(last.weight, std=0.02 / config.layers**0.5)

    def forward(self, x: Tensor) -> Tensor:
        b, length, width = x.shape
        q, k, v = (
            self.qkv(self.norm_attention(x)).reshape(b, length, 3, self.heads, -1).transpose(1, 3).unbind(2)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, length, width)
        x = x + self.out(y)
        out: Tensor = x + self.down(F.gelu(self.up(self.norm_mlp(x))))
        return out


class WordModel(nn.Module):
    """Predicts the masked letters of words: a bidirectional transformer that is told no time.

    Parameters
    ----------
    config : WordModelConfig
        Sizes; the defaults are those of the embedded weights.

    Examples
    --------
    >>> model = WordModel()
    >>> model(torch.full((2, LENGTH), MASK)).shape
    torch.Size([2, 12, 27])
    """

    def __init__(self, config: WordModelConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or WordModelConfig()
        self.token = nn.Embedding(config.vocabulary + 1, config.width)
        self.place = nn.Embedding(config.length, config.width)
        self.layers = nn.ModuleList([_Layer(config) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.vocabulary)
        for table in (self.token, self.place):
            nn.init.normal_(table.weight, std=0.1)

    def backbone(self, tokens: Tensor) -> Tensor:
        """Everything but the head: tokens ``[B, L]`` to vectors ``[B, L, width]``."""
        x = self.token(tokens) + self.place.weight
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.norm(x)
        return out

    def forward(self, tokens: Tensor) -> Tensor:
        """Predict letters.

        Parameters
        ----------
        tokens : int64 Tensor ``[B, L]``
            Words with masks.

        Returns
        -------
        Tensor
            Logits ``[B, L, vocabulary]``; those of positions that are not masked mean nothing.
        """
        out: Tensor = self.head(self.backbone(tokens))
        return out


@dataclass(frozen=True)
class Dictionary:
    """The words that the model was trained on, and those that it was not shown.

    Attributes
    ----------
    train, held_out, others : int64 Tensor
        Words as numbers, ascending, see :meth:`number`: of the training, held out from it, of a larger list.
    """

    train: Tensor
    held_out: Tensor
    others: Tensor

    @staticmethod
    def number(tokens: Tensor) -> Tensor:
        """Words ``[N, 12]`` as numbers with base 27, int64 ``[N]``; -1 where a mask is left."""
        base = (PAD + 1) ** torch.arange(LENGTH - 1, -1, -1, device=tokens.device)
        return torch.where((tokens == MASK).any(1), -1, (tokens * base).sum(1))

    def tokens(self, held_out: bool = False) -> Tensor:
        """The words as tokens, int64 ``[N, 12]``."""
        base = (PAD + 1) ** torch.arange(LENGTH - 1, -1, -1)
        return (self.held_out if held_out else self.train)[:, None] // base % (PAD + 1)

    def shown(self, tokens: Tensor) -> Tensor:
        """Which words are in the training list, bool ``[N]``."""
        return torch.isin(self.number(tokens.cpu()), self.train)

    def new(self, tokens: Tensor) -> Tensor:
        """Which words are real but were not shown in the training, bool ``[N]``."""
        return torch.isin(self.number(tokens.cpu()), torch.cat([self.held_out, self.others]))

    def real(self, tokens: Tensor) -> Tensor:
        """Which words are in any of the lists, bool ``[N]``."""
        return self.shown(tokens) | self.new(tokens)


@dataclass(frozen=True)
class WordWeights:
    """A trained word model and what its file holds beside it.

    Attributes
    ----------
    model : WordModel
        In evaluation mode, parameters without gradients.
    dictionary : Dictionary
        The words, divided as in the training.
    metadata : dict of str to str
        The training command, seed, word lists and their copyright, bounds and versions.
    """

    model: WordModel
    dictionary: Dictionary
    metadata: dict[str, str]


def load_words(path: str | Path = WORDS_PATH, device: str | torch.device = "cpu") -> WordWeights:
    """Load a word model from a safetensors file written by ``tools/train_words.py``.

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
        If the file is no word model.
    """
    state, metadata = read_weights(path, "word model", "tools/train_words.py")
    dictionary = Dictionary(*(state.pop(f"words.{name}") for name in ("train", "held_out", "others")))
    model = WordModel(WordModelConfig(**json.loads(metadata["config"])))
    model.load_state_dict({name: value.float() for name, value in state.items()})
    return WordWeights(model.to(device).eval().requires_grad_(False), dictionary, metadata)
