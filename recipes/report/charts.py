"""Charts of a page, with hover and zoom: Bokeh's, whose script is part of the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from bokeh.embed import components
from bokeh.models import ColumnDataSource, FixedTicker, HoverTool, Span
from bokeh.plotting import figure
from bokeh.resources import Resources

from recipes.report.plots import TRAINING_COLOR, VALIDATION_COLOR, shorten

COLORS = (TRAINING_COLOR, VALIDATION_COLOR, "#3d8b57", "#8a5fb0", "#b8952f", "#4f9fa8", "#b0567d", "#777777")
MARKED = 30
"""Points up to which a line has markers."""
MOST_COUNTS = 30
"""Classes up to which the confusion matrix shows its counts; hovering shows them always."""


@dataclass(frozen=True)
class Line:
    """A line of a chart: its name in the legend, its points, and its colour."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str


def embed(charts: Sequence[Any]) -> tuple[str, list[str]]:
    """Return the scripts of a page with charts, as HTML, and the HTML of each chart; "" and none without."""
    if not charts:
        return "", []
    script, divisions = components(list(charts))
    return Resources(mode="inline", components=["bokeh"]).render() + script, list(divisions)


def blank(title: str, x: str, y: str, **options: Any) -> Any:
    """Return a chart without content. Dragging scrolls a phone's page until a tool of the chart is chosen.

    Args:
        title: Its heading.
        x: Label of the horizontal axis.
        y: Label of the vertical axis.
        options: Further arguments of `bokeh.plotting.figure`.
    """
    defaults = {"height": 300, "sizing_mode": "stretch_width", "tools": "pan,box_zoom,wheel_zoom,reset"}
    chart = figure(
        title=title, x_axis_label=x, y_axis_label=y, active_drag=None, output_backend="canvas",
        **defaults | options,
    )  # fmt: skip
    chart.toolbar.logo = None
    return chart


def draw_lines(title: str, x: str, lines: Sequence[Line], *, marked_x: float | None = None) -> Any:
    """Draw lines over one axis.

    Args:
        title: The heading.
        x: Label of the horizontal axis, and of its value on hover.
        lines: The lines; values that are not finite leave gaps.
        marked_x: Where to draw a dotted vertical line, if anywhere.
    """
    chart = blank(title, x, "")
    for line in lines:
        source = ColumnDataSource({"x": list(line.x), "y": list(line.y), "name": [line.name] * len(line.x)})
        label = {"legend_label": line.name} if len(lines) > 1 else {}
        chart.line("x", "y", source=source, color=line.color, line_width=2, **label)
        size = 5 if len(line.x) <= MARKED else 2
        chart.scatter("x", "y", source=source, color=line.color, size=size, name="points")
    chart.add_tools(hover([(x, "@x"), ("@name", "@y{0.[0000]}")], chart, "points"))
    if marked_x is not None:
        chart.add_layout(Span(location=marked_x, dimension="height", line_dash="dotted", line_color="#888"))
    if len(lines) > 1:
        chart.legend.update(click_policy="hide", label_text_font_size="11px", ncols=2, border_line_color=None)
        chart.add_layout(chart.legend[0], "below")  # where it hides no line
    return chart


def hover(rows: Sequence[tuple[str, str]], chart: Any, name: str) -> HoverTool:
    """Return a hover tool for the glyphs of a name in a chart; rows are labels and Bokeh's formats."""
    return HoverTool(tooltips=list(rows), renderers=[each for each in chart.renderers if each.name == name])


def draw_learning_curves(rows: Sequence[Mapping[str, float]], metric: str, best_epoch: int) -> list[Any]:
    """Draw loss, a metric and the learning rate over epochs, with a line at the epoch that was kept.

    Args:
        rows: Rows of history.csv.
        metric: Which metric to draw beside the loss.
        best_epoch: The epoch whose weights were kept, counted from 1.
    """
    epochs = [row["epoch"] for row in rows]
    charts = []
    for name in dict.fromkeys(("loss", metric, "learning_rate")):
        parts = {"training": name, "validation": f"validation_{name}"}
        lines = [
            Line(part, epochs, [row[column] for row in rows], color)
            for (part, column), color in zip(parts.items(), COLORS, strict=False)
            if column in rows[0]
        ]
        charts.append(draw_lines(name.replace("_", " "), "epoch", lines, marked_x=best_epoch))
    return charts


def draw_confusion(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> Any:
    """Draw a confusion matrix, shaded by the fraction of the true class; hovering shows names and counts.

    Args:
        confusion: (classes, classes); rows are true classes, columns predicted ones.
        classes: Names of the classes.
    """
    count = len(classes)
    parts = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    true, predicted = (each.ravel().tolist() for each in np.indices(confusion.shape))
    source = ColumnDataSource(
        {
            "x": predicted,
            "y": true,
            "predicted": [classes[label] for label in predicted],
            "true": [classes[label] for label in true],
            "count": confusion.ravel(),
            "text": [str(each or "·") for each in confusion.ravel()],
            "alpha": np.sqrt(parts).ravel(),  # the root makes rare mistakes visible
            "ink": ["#fff" if part > 0.4 else "#111" for part in parts.ravel()],
        }
    )
    ends = (-0.5, count - 0.5)
    labels = {label: shorten(name) for label, name in enumerate(classes)}
    size = min(800, 140 + 34 * count) + 6 * max(map(len, labels.values()))
    chart = blank(
        "confusion matrix", "predicted", "true", x_range=ends, y_range=ends[::-1],
        height=size, sizing_mode="scale_width" if count > 20 else "stretch_width", max_width=size + 80,
    )  # fmt: skip
    chart.rect("x", "y", 1, 1, source=source, color="#08306b", alpha="alpha", line_color=None, name="cells")
    if count <= MOST_COUNTS:
        font = {"text_font_size": "11px", "text_align": "center", "text_baseline": "middle"}
        chart.text("x", "y", "text", source=source, text_color="ink", **font)
    chart.add_tools(
        hover([("true", "@true"), ("predicted", "@predicted"), ("examples", "@count")], chart, "cells")
    )
    for axis in (chart.xaxis, chart.yaxis):
        axis.ticker = FixedTicker(ticks=list(labels)) if count <= 60 else axis.ticker
        axis.major_label_overrides = labels
    if max(map(len, classes)) > 2:
        chart.xaxis.major_label_orientation = "vertical"
    chart.grid.visible = False
    return chart


def draw_predictions(targets: npt.NDArray[Any], predictions: npt.NDArray[Any]) -> Any:
    """Draw predictions against targets, each (n, 1), with the line on which they are equal."""
    chart = blank("predictions", "target", "prediction", height=380, max_width=560)
    ends = [float(min(targets.min(), predictions.min())), float(max(targets.max(), predictions.max()))]
    chart.line(ends, ends, color="#888", line_dash="dotted")
    source = ColumnDataSource({"x": np.ravel(targets), "y": np.ravel(predictions)})
    chart.scatter("x", "y", source=source, color=TRAINING_COLOR, alpha=0.8, size=6, name="rows")
    chart.add_tools(hover([("target", "@x{0.[000]}"), ("prediction", "@y{0.[000]}")], chart, "rows"))
    return chart


def draw_trade_off(rows: Sequence[Mapping[str, Any]], metric: str, limit: float) -> Any:
    """Draw a metric against the percentage of the dense model's parameters that are 0 or removed.

    Args:
        rows: The dense model first; each with `step`, `kept`, `nonzero_parameters` and the metric.
        metric: Its name.
        limit: The worst value within the tolerance.
    """
    chart = blank(metric.replace("_", " "), "parameters that are 0 or removed, %", "")
    dense = rows[0]["nonzero_parameters"]
    columns = {
        "x": [100 * (1 - row["nonzero_parameters"] / dense) for row in rows],
        "y": [row[metric] for row in rows],
        "step": [row["step"] for row in rows],
        "marker": ["circle" if row["kept"] else "x" for row in rows],
        "color": [COLORS[0] if row["kept"] else COLORS[1] for row in rows],
    }
    kept = [(x, y) for x, y, row in zip(columns["x"], columns["y"], rows, strict=True) if row["kept"]]
    chart.line([x for x, _ in kept], [y for _, y in kept], color=COLORS[0])
    source = ColumnDataSource(columns)
    chart.scatter("x", "y", marker="marker", color="color", size=9, source=source, name="steps")
    chart.add_tools(
        hover([("step", "@step"), ("removed, %", "@x{0.0}"), (metric, "@y{0.[0000]}")], chart, "steps")
    )
    chart.line([min(columns["x"]), max(columns["x"])], limit, color="#888", line_dash="dashed")
    return chart
