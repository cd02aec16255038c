"""What networks hand out, brought to one form: logits of the rows that are asked for.

Nothing here touches values: the mask id is forbidden by the samplers, in the operators that draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .schedule import CONDITIONINGS, Conditioning

Kind = Literal["logits", "sedd", "hf", "dream"]
#: kind -> (called with keywords as transformers' models are, row l is predicted by output l - 1, told)
_KINDS: dict[str, tuple[bool, bool, Conditioning]] = {
    "logits": (False, False, "none"),
    "sedd": (False, False, "sigma"),
    "hf": (True, False, "none"),
    "dream": (True, True, "none"),
}


class RowLogits(NamedTuple):
    """Logits of some rows of every sequence.

    Attributes
    ----------
    values : Tensor [B, M, V]
    gathered : bool
        If true, M is the number k of positions asked for, and row j belongs to ``positions[:, j]``; else M is
        L and rows are positions.
    """

    values: Tensor
    gathered: bool


class MaskedModel:
    """A network as the samplers call it; made by `as_model`.

    Attributes
    ----------
    time : str
        What it is told besides the tokens: "none", "t", "sigma" or "mask_prob".
    """

    def __init__(
        self,
        body: Callable[..., Any],
        head: Callable[[Tensor], Tensor] | None,
        keywords: bool,
        shift: bool,
        time: Conditioning,
        takes_positions: bool,
        model_kwargs: Mapping[str, Any],
    ) -> None:
        self.time: Conditioning = time
        self._body, self._head = body, head
        self._keywords, self._shift, self._takes_positions = keywords, shift, takes_positions
        self._kwargs = dict(model_kwargs)

    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        *,
        condition: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> RowLogits:
        """Evaluate the network once.

        Parameters
        ----------
        tokens : int64 Tensor [B, L]
        positions : int Tensor [B, k], optional
            Rows that are needed; -1 means none. Without a head that takes rows, all L come back.
        condition : float32 Tensor [B], optional
            What `time` says.
        attention_mask : Tensor [B, L], optional
            Passed on to the network.

        Raises
        ------
        ValueError, TypeError
            If the network's output is no floating-point tensor of the expected shape.
        """
        kwargs = self._kwargs
        if attention_mask is not None:
            kwargs = {**kwargs, "attention_mask": attention_mask}
        # most networks give all rows whatever is asked for
        selects = self._head is not None or self._shift or self._takes_positions
        rows = None if positions is None or not selects else self._rows(positions)
        if rows is not None and self._takes_positions:
            kwargs = {**kwargs, "positions": rows}
        told = () if self.time == "none" else (condition,)
        out = (
            self._body(input_ids=tokens, **kwargs) if self._keywords else self._body(tokens, *told, **kwargs)
        )
        gathered = rows is not None and self._takes_positions
        values = _tensor(out)
        if rows is not None and not gathered:
            _check(values, tokens.shape, "the backbone" if self._head else "the model")
            values = values.gather(1, rows[:, :, None].expand(-1, -1, values.shape[2]))
            gathered = True
        elif self._shift and not gathered:
            values = torch.cat([values[:, :1], values[:, :-1]], dim=1)
        if self._head is not None:
            values = self._head(values)
        wanted = tokens.shape if rows is None or not gathered else rows.shape
        _check(values, wanted, "the model" if self._head is None else "the head")
        return RowLogits(values, gathered)

    def _rows(self, positions: Tensor) -> Tensor:
        """Rows of the output that predict these positions; some row where there is no position."""
        return (positions.long() - int(self._shift)).clamp(min=0)


def as_model(
    model: Callable[..., Any] | MaskedModel | None = None,
    *,
    kind: Kind = "logits",
    time: Conditioning | None = None,
    backbone: Callable[..., Any] | None = None,
    head: Callable[[Tensor], Tensor] | None = None,
    takes_positions: bool = False,
    model_kwargs: Mapping[str, Any] | None = None,
) -> MaskedModel:
    """Describe a network to the samplers, which take a plain ``model(tokens) -> logits`` without this.

    Parameters
    ----------
    model : callable, optional
        Returns logits [B, L, V], as a tensor or as the attribute ``logits`` of what it returns.
    kind : str
        ============  =========================================  =================================
        kind          is called                                  gives
        ============  =========================================  =================================
        ``logits``    ``model(tokens)`` (MDLM, MD4, RADD)        logits
        ``sedd``      ``model(tokens, sigma)``                   log-scores: logits but for a constant
        ``hf``        ``model(input_ids=tokens)`` (LLaDA)        logits
        ``dream``     ``model(input_ids=tokens)``                logits of row l in output l - 1
        ============  =========================================  =================================
    time : "none", "t", "sigma" or "mask_prob", optional
        What the network takes after the tokens, float32 [B]; default as in the table. Sigma is -ln(alpha).
    backbone, head : callable, optional
        In place of `model`, a network in two parts: hidden states [B, L, D] from the tokens, called as `kind`
        says and returning a tensor or ``last_hidden_state``, and logits [..., V] from hidden rows [..., D].
        The head is then computed for the rows that are drawn only: one in L, for a first-hitting step.
    takes_positions : bool
        The model takes ``positions=`` (int64 [B, k]) and then returns those rows, [B, k, V].
    model_kwargs : mapping, optional
        Further keyword arguments of every call.

    Returns
    -------
    MaskedModel
        `model` itself, if it is one already.

    Raises
    ------
    ValueError, TypeError
        If arguments contradict each other.

    Notes
    -----
    An ``attention_mask`` given to a sampler reaches the network as a keyword. An output row that predicts an
    unmasked token is never read. SEDD's score of a masked row is s_v = p(v) (1 - m) / m at mask probability
    m, so the softmax of its logarithm over the tokens other than the mask is p (Lou et al., arXiv 2310.16834;
    Ou et al., arXiv 2406.03736).

    Examples
    --------
    >>> import torch
    >>> embed, unembed = torch.nn.Embedding(11, 8), torch.nn.Linear(8, 10)
    >>> model = as_model(backbone=embed, head=unembed)
    >>> tokens = torch.full((2, 5), 10)
    >>> model(tokens, torch.tensor([[3], [0]])).values.shape  # one row of each sequence
    torch.Size([2, 1, 10])
    """
    if kind not in _KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(_KINDS)}, got {kind!r}")
    keywords, shift, told = _KINDS[kind]
    if time is not None and time not in CONDITIONINGS:
        raise ValueError(f"`time` must be one of {', '.join(CONDITIONINGS)}, got {time!r}")
    if keywords and time not in (None, "none"):
        raise ValueError(f"`time` must be 'none' for kind {kind!r}, got {time!r}")
    if isinstance(model, MaskedModel):
        changed = (kind, time, backbone, head, takes_positions, model_kwargs)
        if changed != ("logits", None, None, None, False, None):
            raise ValueError("`model` is an adapted model already: other arguments must be left out")
        return model
    if (backbone is None) != (head is None):
        raise ValueError("`backbone` and `head` go together")
    if (model is None) == (backbone is None):
        raise ValueError("give either `model` or `backbone` and `head`")
    if takes_positions and backbone is not None:
        raise ValueError("`takes_positions` is of a `model`; a `head` takes the rows themselves")
    for name, part in (("model", model), ("backbone", backbone), ("head", head)):
        if part is not None and not callable(part):
            raise TypeError(f"`{name}` must be callable, got {type(part).__name__}")
    body = model if backbone is None else backbone
    assert body is not None
    return MaskedModel(body, head, keywords, shift, time or told, takes_positions, model_kwargs or {})


def _tensor(out: Any) -> Tensor:
    for name in ("logits", "last_hidden_state"):
        if not isinstance(out, Tensor) and isinstance(getattr(out, name, None), Tensor):
            out = getattr(out, name)
    if not isinstance(out, Tensor):
        raise TypeError(
            f"the model must return a Tensor or an object with `logits`, got {type(out).__name__}"
        )
    return out


def _check(values: Tensor, leading: torch.Size, what: str) -> None:
    if values.dim() != 3 or values.shape[:2] != leading:
        wanted = ", ".join(str(n) for n in leading)
        raise ValueError(
            f"{what} must return shape [{wanted}, {'D' if 'back' in what else 'V'}], "
            f"got {tuple(values.shape)}"
        )
    if not values.is_floating_point():
        raise TypeError(f"{what} must return a floating-point tensor, got {values.dtype}")
