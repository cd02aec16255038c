"""Float arithmetic to the last bit: fma without a fused instruction, and the library's own logarithm.

PyTorch has no fma, and its `log` differs between processors. A draw must not: these are the IEEE results that
every kernel gives.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

# Minimax coefficients of log((1 + s) / (1 - s)) / s - 2 in s^2, and ln 2 in two parts: the classical ones of
# the freely distributable libm.
_LOG = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_SPLIT = float((1 << 27) + 1)


def _two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return a + b rounded, and its error, exactly (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return a * b rounded, and its error, exact within the range of float64 (Veltkamp, Dekker)."""
    high = [x * _SPLIT - (x * _SPLIT - x) for x in (a, b)]
    low = [a - high[0], b - high[1]]
    product = a * b
    error = (high[0] * high[1] - product) + high[0] * low[1] + low[0] * high[1] + low[0] * low[1]
    return product, error


def _sum_to_odd(a: Tensor, b: Tensor) -> Tensor:
    """Return a + b, rounded to the neighbour with an odd significand when it is not a float64.

    Rounding that again, to fewer bits or after adding something large, gives what one rounding would have
    given (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", IEEE Trans. Comput. 2008).
    """
    total, error = _two_sum(a, b)
    bits = total.view(torch.int64)
    outwards = (error > 0) == (total > 0)
    odd = torch.where(outwards, bits + 1, bits - 1).view(torch.float64)
    return torch.where((error != 0) & error.isfinite() & (bits & 1 == 0), odd, total)


def _fma_of_fractions(a: float, b: float, c: float) -> float:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    try:
        return float(exact) if exact else a * b + c
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return a * b + c rounded once, for float32 or float64 tensors (broadcast).

    Examples
    --------
    >>> x = torch.tensor(1 + 2.0**-30, dtype=torch.float64)
    >>> float(fma(x, x, -(1 + 2.0**-29) * torch.ones_like(x))) == 2.0**-60
    True
    """
    a, b, c = torch.broadcast_tensors(a, b, c)
    # for what is not finite; a product that overflows is still finite beside an infinite c
    plain = torch.where(a.isfinite() & b.isfinite() & ~c.isfinite(), c, a * b + c)
    if a.dtype == torch.float32:
        # the product of two float32 is a float64; the sum needs one rounding, to float32
        once = _sum_to_odd(a.double() * b.double(), c.double()).float()
        return torch.where(plain.isnan() | a.isinf() | b.isinf() | c.isinf() | (once == 0), plain, once)
    product, rest = _two_product(a, b)
    near, small = _two_sum(c, rest)
    upper, lower = _two_sum(product, near)
    once = upper + _sum_to_odd(small, lower)
    result = torch.where(once == 0, plain, once)  # only the plain sum knows the sign of an exact zero
    finite = a.isfinite() & b.isfinite() & c.isfinite()
    result = torch.where(finite, result, plain)
    # where the error-free steps could over- or underflow, in exact rational numbers, one by one
    size = torch.maximum(a.abs(), b.abs())
    tiny = (product.abs() < 2.0**-900) & (a != 0) & (b != 0)
    extreme = finite & ((size > 2.0**900) | (product.abs() > 2.0**1000) | (c.abs() > 2.0**1000) | tiny)
    if bool(extreme.any()):
        numbers = zip(*(x[extreme].tolist() for x in (a, b, c)), strict=True)
        result = result.clone()
        result[extreme] = torch.tensor(
            [_fma_of_fractions(*abc) for abc in numbers], dtype=a.dtype, device=a.device
        )
    return result


def fd_log(x: Tensor) -> Tensor:
    """Return the natural logarithm of normal positive float64 numbers: relative error at most 1.3 * 2^-53.

    +, -, *, / and fma in a fixed order, so that every processor gets the same bits.

    Examples
    --------
    >>> fd_log(torch.tensor([1.0, 8.0], dtype=torch.float64)) / math.log(2)
    tensor([0., 3.], dtype=torch.float64)
    """
    m, e = torch.frexp(x)
    small = m < math.sqrt(0.5)  # this double is above the true root
    m, e = torch.where(small, 2 * m, m), (e - small.int()).double()
    f = m - 1
    s = f / (2 + f)
    z = s * s
    r = torch.full_like(z, _LOG[-1])
    for coefficient in reversed(_LOG[:-1]):
        r = fma(r, z, torch.full_like(z, coefficient))
    r = z * r
    h = 0.5 * f * f
    return e * _LN2_HIGH - ((h - (s * (h + r) + e * _LN2_LOW)) - f)


def exponential(w: Tensor) -> Tensor:
    """Return -log(1 - w) for w in [2^-129, 1): a standard exponential if w is uniform. Error <= 2^-52."""
    u = 1 - w
    lost = (1 - u) - w
    large = -(fd_log(u) + lost / u)
    return torch.where(w < 2.0**-27, fma(0.5 * w, w, w), large)
