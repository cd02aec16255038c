"""Models whose every conditional is known, to test samplers against."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

_MAX_CONTEXTS = 1 << 22


class TabularMaskedModel:
    """The exact conditionals of a joint distribution, as a masked model: a table of all contexts.

    Parameters
    ----------
    joint : Tensor, shape [V] * L
        Probabilities of all sequences of L tokens; normalised here.
    perturb : float
        Multiply each conditional probability by exp(perturb z), z normal, and normalise: then they are the
        conditionals of no distribution, as those of trained networks are, and the law of generated
        sequences depends on the order in which positions are revealed.
    seed : int
        Of that noise.

    Attributes
    ----------
    joint : float64 Tensor [V] * L
    vocab_size, length : int
    mask_id : int
        V, the number after the last token.
    conditionals : float64 Tensor [(V + 1)^L, L, V]
        P(x_l = v | context), by the number of the context (`context_index`); uniform at revealed positions.

    Raises
    ------
    ValueError, TypeError
        If `joint` is no distribution over sequences, or has too many contexts for a table.

    Examples
    --------
    >>> joint = torch.tensor([[0.5, 0.0], [0.25, 0.25]])
    >>> model = TabularMaskedModel(joint)
    >>> model(torch.tensor([[1, 2]])).exp()[0, 1]  # P(x_1 | x_0 = 1)
    tensor([0.5000, 0.5000], dtype=torch.float64)
    >>> bool(torch.allclose(model.any_order_law(), joint.double()))  # consistent: every order gives the joint
    True
    """

    def __init__(self, joint: Tensor, perturb: float = 0.0, *, seed: int = 0) -> None:
        if not isinstance(joint, Tensor) or not joint.is_floating_point():
            raise TypeError("`joint` must be a floating-point Tensor")
        if joint.dim() == 0 or len(set(joint.shape)) != 1:
            raise ValueError(f"`joint` must have shape [V] * L, got {tuple(joint.shape)}")
        self.vocab_size, self.length = joint.shape[0], joint.dim()
        self.mask_id = self.vocab_size
        contexts = (self.vocab_size + 1) ** self.length
        if contexts * self.length * self.vocab_size > _MAX_CONTEXTS:
            raise ValueError(f"`joint` must have fewer contexts than {contexts}, all of which are tabulated")
        joint = joint.double()
        if not bool(((joint >= 0) & (joint < math.inf)).all()) or not bool(joint.sum() > 0):
            raise ValueError("`joint` must hold probabilities")
        self.joint = joint / joint.sum()
        marginals = self.joint  # index V of an axis: summed over
        for axis in range(self.length):
            marginals = torch.cat([marginals, marginals.sum(axis, keepdim=True)], dim=axis)
        tables = []
        for axis in range(self.length):
            # of contexts that differ at `axis` only, all see the same conditional there
            table = marginals.movedim(axis, -1)[..., : self.vocab_size]
            tables.append(table.unsqueeze(axis).expand(*marginals.shape, self.vocab_size).flatten(0, -2))
        conditionals = torch.stack(tables, dim=1)
        if perturb:
            noise = torch.randn(
                conditionals.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
            )
            conditionals = conditionals * torch.exp(perturb * noise)
        total = conditionals.sum(-1, keepdim=True)
        conditionals = torch.where(total > 0, conditionals / total, 1.0 / self.vocab_size)
        masked = (self.contexts == self.mask_id)[..., None]
        self.conditionals = torch.where(masked, conditionals, 1.0 / self.vocab_size)
        self._logits = self.conditionals.log()

    def __call__(self, tokens: Tensor) -> Tensor:
        """Log-probabilities float64 [B, L, V] of tokens int64 [B, L]."""
        return self._logits.to(tokens.device)[self.context_index(tokens)]

    def context_index(self, tokens: Tensor) -> Tensor:
        """Number of each sequence [..., L] read in base V + 1, first position first."""
        weights = (self.vocab_size + 1) ** torch.arange(self.length - 1, -1, -1, device=tokens.device)
        return (tokens * weights).sum(-1)

    @cached_property
    def contexts(self) -> Tensor:
        """All contexts int64 [(V + 1)^L, L], by number."""
        axes = [torch.arange(self.vocab_size + 1)] * self.length
        return torch.cartesian_prod(*axes).reshape(-1, self.length)

    def masks(self, batch: int) -> Tensor:
        """`batch` sequences of masks, int64 [batch, L]."""
        return torch.full((batch, self.length), self.mask_id)

    def counts(self, tokens: Tensor) -> Tensor:
        """How often each sequence occurs among tokens [N, L]: float64 of the shape of `joint`."""
        weights = self.vocab_size ** torch.arange(self.length - 1, -1, -1)
        places = (tokens.cpu() * weights).sum(-1)
        return torch.bincount(places, minlength=self.joint.numel()).double().view(self.joint.shape)

    def any_order_law(self) -> Tensor:
        """Law of sequences generated one token at a time in uniformly random order, shape [V] * L.

        The average over all L! orders, summed context by context.
        """
        weights = (self.vocab_size + 1) ** torch.arange(self.length - 1, -1, -1)
        masked = self.contexts == self.mask_id
        number = torch.arange(len(masked))
        law = torch.zeros(len(masked), dtype=torch.float64)
        law[-1] = 1.0  # all masked
        for left in range(self.length, 0, -1):
            here = masked.sum(1) == left
            following = torch.zeros_like(law)
            for place in range(self.length):
                rows = here & masked[:, place]
                for v in range(self.vocab_size):
                    moved = number[rows] + (v - self.mask_id) * weights[place]
                    following[moved] += law[rows] / left * self.conditionals[rows, place, v]
            law = following
        complete = ~masked.any(1)
        return law[complete].view(self.joint.shape)
