"""Rows of the tables in docs/results: results of several seeds as mean and spread, in Markdown."""

import statistics
from collections.abc import Sequence


def mean_and_spread(values: Sequence[float], digits: int = 2) -> str:
    """Return mean ± standard deviation of a sample, rounded to digits; the value itself if there is one only."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def print_header(*names: str) -> None:
    """Print the names of a table's columns."""
    print_row(*names)
    print(f"|{'---|' * len(names)}", flush=True)


def print_row(*cells: object) -> None:
    """Print a row at once, so that a benchmark that is interrupted has printed what it measured."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
