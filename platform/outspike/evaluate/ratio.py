"""Division that knows where it is not defined."""

import math

import numpy as np
from numpy.typing import NDArray


def ratio(numerator: NDArray[np.number], denominator: NDArray[np.number]) -> NDArray[np.float64]:
    """``numerator / denominator``, NaN where the denominator is not above zero."""
    result = np.full(numerator.shape, math.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
