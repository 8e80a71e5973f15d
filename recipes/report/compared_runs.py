"""A page that compares finished runs: metrics, curves and settings side by side."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes.config import UserError, flatten
from recipes.report.charts import COLORS, Line, draw_lines
from recipes.report.page import Chart, Page, Table, write_page
from recipes.runs.directory import Run

SIZES = ("parameters", "nonzero_parameters", "epochs", "best_epoch", "train_seconds", "dataset", "note")


def write_comparison(path: Path, runs: Sequence[Run]) -> None:
    """Write the page.

    Args:
        path: Where it goes.
        runs: Finished runs.

    Raises:
        UserError: A run has no history, runs have no metric in common, or a run is named twice.
    """
    names = _names(runs)
    charts = _curves({name: _history(run) for name, run in zip(names, runs, strict=True)})
    notes = dict.fromkeys(str(run.metrics["note"]) for run in runs if run.metrics.get("note"))
    settings = _side_by_side("setting", names, [dict(flatten(run.config)) for run in runs])
    different = [row for row in settings if len({str(row[name]) for name in names}) > 1]
    tables = [
        Table("Metrics", _metrics(names, runs)),
        *([Table("Settings that differ", different)] if different else []),
        Table("All settings", settings, folded=True),
    ]
    page = Page(
        charts=[Chart(charts, "By epoch. A click on a name in a legend hides its line.")], tables=tables
    )
    write_page(path, f"Comparison of {', '.join(names)}", " ".join(notes), page)


def _curves(histories: Mapping[str, list[dict[str, float]]]) -> list[Any]:
    """Draw each metric that all runs have validated, in training and validation, and the learning rate."""
    common = set.intersection(*(set(rows[0]) for rows in histories.values()))
    validated = sorted(column for column in common if column.startswith("validation_"))
    if not validated:
        raise UserError(f"runs to compare must have a metric in common. Received: {', '.join(histories)}")
    trained = [column.removeprefix("validation_") for column in validated]
    return [
        draw_lines(
            column.replace("_", " "),
            "epoch",
            [
                Line(name, [row["epoch"] for row in rows], [row[column] for row in rows], color)
                for (name, rows), color in zip(histories.items(), itertools.cycle(COLORS), strict=False)
            ],
        )
        for column in (*validated, *trained, "learning_rate")
        if column in common
    ]


def _names(runs: Sequence[Run]) -> list[str]:
    """Return the last parts of the runs' paths, as many as tell them apart."""
    paths = [run.path.resolve().parts for run in runs]
    if len(set(paths)) < len(paths):
        raise UserError(
            f"a run is compared with itself. Received: {', '.join(str(run.path) for run in runs)}"
        )
    length = next(count for count in range(1, 100) if len({path[-count:] for path in paths}) == len(paths))
    return ["/".join(path[-length:]) for path in paths]


def _history(run: Run) -> list[dict[str, float]]:
    rows = run.history if run.history_path.exists() else []
    if not rows:
        raise UserError(f"{run.path} has no epochs in history.csv")
    return rows


def _metrics(names: Sequence[str], runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return a row for each score and size."""
    metrics = [
        {
            key.replace("_", " "): value
            for key, value in run.metrics.items()
            if key in SIZES or (key.startswith(("test_", "validation_")) and isinstance(value, float | int))
        }
        for run in runs
    ]
    return _side_by_side("metric", names, metrics)


def _side_by_side(kind: str, names: Sequence[str], many: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each key of any mapping, with its value in each of them."""
    keys = dict.fromkeys(key for each in many for key in each)
    return [
        {kind: key, **{name: each.get(key, "") for name, each in zip(names, many, strict=True)}}
        for key in keys
    ]
