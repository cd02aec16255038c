"""The embedded digit model: a small class-conditional U-Net that predicts the diffusion velocity.

The model is plain PyTorch, so that the demo shows what users have: a network that knows nothing of this
library, called by the sampler as ``model(x, t, **kwargs)``. It is trained by ``tools/train_digits.py`` on
scikit-learn's handwritten digits, drawn at 16 x 16 pixels. A thousand evaluations take seconds on a CPU.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DigitModel", "DigitModelConfig"]


@dataclass(frozen=True)
class DigitModelConfig:
    """Sizes of a :class:`DigitModel`.

    Attributes
    ----------
    image_size : int
        Height and width of the pictures in pixels, a multiple of 4.
    n_classes : int
        Number of labels. Label ``n_classes`` is the null class of classifier-free guidance.
    width : int
        Channels at half of the resolution.
    width_low : int
        Channels at a quarter of the resolution.
    embedding : int
        Length of the time and class embedding.
    """

    image_size: int = 16
    n_classes: int = 10
    width: int = 48
    width_low: int = 80
    embedding: int = 128

    def to_dict(self) -> dict[str, Any]:
        """Return the sizes as a dictionary that JSON can hold."""
        return asdict(self)


class _Block(nn.Module):
    """Residual block: two 3 x 3 convolutions, with scale and shift from the embedding in between."""

    def __init__(self, c_in: int, c_out: int, embedding: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(8, c_in)
        self.conv_in = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * c_out)
        self.norm_out = nn.GroupNorm(8, c_out)
        self.conv_out = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.film(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.conv_in(F.silu(self.norm_in(x)))
        h = self.norm_out(h) * (1 + scale) + shift
        out: Tensor = self.skip(x) + self.conv_out(F.silu(h))
        return out


class _Attention(nn.Module):
    """Residual self-attention over the pixels, two heads."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, 2, c // 2, h * w).transpose(-1, -2).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(y.transpose(-1, -2).reshape(b, c, h, w))
        return x + out


class DigitModel(nn.Module):
    """Velocity model ``v = alpha eps - sigma x0`` of handwritten digits under the VP cosine schedule.

    Parameters
    ----------
    config : DigitModelConfig
        Sizes; the defaults are those of the embedded weights.

    Examples
    --------
    >>> import torch
    >>> model = DigitModel()
    >>> model(torch.zeros(2, 1, 16, 16), torch.full((2,), 0.5), y=torch.tensor([3, 10])).shape
    torch.Size([2, 1, 16, 16])
    """

    frequencies: Tensor

    def __init__(self, config: DigitModelConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DigitModelConfig()
        w, lo, emb = config.width, config.width_low, config.embedding
        self.time = nn.Sequential(nn.Linear(32, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.label = nn.Embedding(config.n_classes + 1, emb)
        self.register_buffer("frequencies", 0.2 * torch.logspace(0, 1.1, 16), persistent=False)
        self.stem = nn.Conv2d(4, w, 3, padding=1)
        self.high_in = nn.ModuleList([_Block(w, w, emb), _Block(w, w, emb)])
        self.down = nn.Conv2d(w, lo, 3, stride=2, padding=1)
        self.low = nn.ModuleList([_Block(lo, lo, emb), _Block(lo, lo, emb), _Block(lo, lo, emb)])
        self.attention = _Attention(lo)
        self.up = nn.Conv2d(lo, w, 1)
        self.high_out = nn.ModuleList([_Block(2 * w, w, emb), _Block(2 * w, w, emb)])
        self.head = nn.Sequential(nn.GroupNorm(8, w), nn.SiLU(), nn.Conv2d(w, 4, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Predict the velocity.

        Parameters
        ----------
        x : Tensor
            Noisy pictures ``[B, 1, image_size, image_size]``; clean pixels are in [-1, 1], ink is 1.
        t : Tensor
            Times ``[B]`` of the schedule, 0 at the data and 1 at the noise.
        y : Tensor, optional
            Labels ``[B]`` (int64), ``n_classes`` for the null class; None means the null class for all.

        Returns
        -------
        Tensor
            Velocity, shaped like `x`.
        """
        if y is None:
            y = torch.full(x.shape[:1], self.config.n_classes, device=x.device)
        # Close to half the log signal-to-noise ratio, the variable in which solvers take their steps: the
        # network shall vary slowly in it, or high orders gain nothing.
        level = torch.log((1.008 - t) / (t + 0.008)).to(x.dtype)
        angle = level[:, None] * self.frequencies
        emb = F.silu(self.time(torch.cat([angle.sin(), angle.cos()], dim=1)) + self.label(y))
        h = self.stem(F.pixel_unshuffle(x, 2))
        skips = []
        for block in self.high_in:
            h = block(h, emb)
            skips.append(h)
        h = self.down(h)
        for i, block in enumerate(self.low):
            h = block(h, emb)
            if i == 0:
                h = self.attention(h)
        h = self.up(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        for block in self.high_out:
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        return F.pixel_shuffle(self.head(h), 2)
