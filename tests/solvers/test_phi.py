import math
from fractions import Fraction

import numpy as np
import pytest
from fastdiff_ops.solvers.phi import exact_weights, phi


@pytest.mark.parametrize(
    ("k", "z", "expected"),
    [
        (1, -2.0, 0.432332358),
        (2, -2.0, 0.283833821),
        (3, -2.0, 0.108083090),
        (1, 0.7, 1.448218154),
        (2, 0.7, 0.640311648),
        (3, 0.7, 0.200445211),
    ],
)
def test_golden_values(k: int, z: float, expected: float) -> None:
    assert phi(k, z) == pytest.approx(expected, abs=5e-10)


@pytest.mark.parametrize("z", [-30.0, -5.0, -1.0, -0.999, -0.3, -1e-9, 0.0, 1e-9, 0.5, 0.999, 1.0, 3.0, 12.0])
@pytest.mark.parametrize("k", range(6))
def test_against_exact_rational_series(k: int, z: float) -> None:
    exact, term = Fraction(0), Fraction(1, math.factorial(k))
    for j in range(1, 220):
        exact += term
        term = term * Fraction(z) / (j + k)
    assert phi(k, z) == pytest.approx(float(exact), rel=1e-13)


def test_limits() -> None:
    assert phi(0, -math.inf) == 0.0
    assert [phi(k, -math.inf) for k in (1, 2, 3)] == [0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="`k` must be at least 0, got -1"):
        phi(-1, 0.0)


@pytest.mark.parametrize("z", [-3.0, -0.2, 0.4, 2.0])
def test_exact_weights_integrate_polynomials(z: float) -> None:
    nodes = [0.0, -0.4, -1.1]
    weights = exact_weights(nodes, z)
    u, gauss = np.polynomial.legendre.leggauss(40)
    u, gauss = 0.5 * (u + 1.0), 0.5 * gauss
    for degree in range(3):
        integral = (gauss * np.exp(z * (1.0 - u)) * u**degree).sum()
        assert (weights * np.array(nodes) ** degree).sum() == pytest.approx(integral, rel=1e-13)
