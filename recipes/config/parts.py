"""Parts of a whole that a setting gives as a fraction."""

from fractions import Fraction


def whole_part(fraction: float, count: int) -> int:
    """Return how many of `count` a fraction is, rounded down: 0.29 of 100 is 29, where 0.29 * 100 is below."""
    return int(Fraction(str(fraction)) * count)
