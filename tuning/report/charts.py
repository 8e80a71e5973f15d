"""Charts of a search, with hover and zoom."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, FixedTicker, Range1d
from bokeh.palettes import Viridis256

from recipes.config import flatten, to_dict
from recipes.report.charts import COLORS, blank, hover
from tuning.directory import SearchDirectory
from tuning.plan import Plan
from tuning.space import BATCH_SIZE, LEARNING_RATE
from tuning.trial import Trial, ranked

MARKERS = {"finished": "circle", "stopped": "inverted_triangle", "failed": "x"}
FAILED_COLOR = "#b00020"
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def draw_best_so_far(directory: SearchDirectory, trials: Sequence[Trial]) -> Any:
    """Draw the value of each trial and the best value so far against time."""
    plan = directory.plan
    ended = sorted(_scored(trials), key=lambda trial: trial.ended or 0.0)
    start = min(trial.started for trial in trials)
    minutes = [((trial.ended or 0.0) - start) / 60 for trial in ended]
    best = [ranked(ended[: count + 1], plan.sign)[0].known_value for count in range(len(ended))]
    ends = better_values(plan, trials, margin=0.3)
    chart = blank("best so far", "minutes since the start of the search", _words(plan.objective))
    chart.y_range = _around(ends)
    chart.step(minutes, np.clip(best, *ends), mode="after", color=COLORS[1], line_width=2)
    _scatter(chart, plan, ended, minutes, [trial.known_value for trial in ended], ends)
    return chart


def draw_rate_against_batch(directory: SearchDirectory, trials: Sequence[Trial]) -> Any:
    """Draw the learning rate and batch size of each trial, coloured by the objective."""
    plan = directory.plan
    own = dict(flatten(to_dict(plan.recipe)))
    ended = [trial for trial in trials if trial.value is not None or trial.status == "failed"]
    sizes = [{**own, **trial.values}[BATCH_SIZE] for trial in ended]
    rates = [{**own, **trial.values}[LEARNING_RATE] for trial in ended]
    chart = blank(
        "learning rate and batch size", "batch size", "learning rate", x_axis_type="log", y_axis_type="log"
    )
    chart.xaxis.ticker = FixedTicker(ticks=sorted(set(sizes)))
    chart.xaxis.major_label_overrides = {size: str(size) for size in sizes}
    _scatter(chart, plan, ended, sizes, rates, None)
    return chart


def draw_parallel_coordinates(directory: SearchDirectory, trials: Sequence[Trial]) -> Any:
    """Draw each trial as a line across one axis per setting and one of the objective, the best one thick."""
    plan, dimensions = directory.plan, directory.plan.dimensions
    low, high = better_values(plan, trials)
    shown = ranked(_scored(trials), plan.sign)[::-1]  # the best on top
    names = [*(dimension.name.split(".")[-1] for dimension in dimensions), plan.objective]
    chart = blank(
        "settings of each trial", "", "", x_range=(-0.2, len(names) - 0.5), y_range=(-0.05, 1.05), height=380
    )
    places = [
        [
            *(dimension.place(trial.values[dimension.name]) for dimension in dimensions),
            float(np.clip((trial.known_value - low) / (high - low), 0, 1)),
        ]
        for trial in shown
    ]
    columns = {
        "xs": [list(range(len(names)))] * len(shown),
        "ys": places,
        "width": [1.5] * (len(shown) - 1) + [4],
        **_columns(plan, shown),
    }
    chart.multi_line(
        "xs", "ys", line_width="width", color="color", source=ColumnDataSource(columns), name="trials"
    )
    chart.add_tools(hover(_rows(plan), chart, "trials"))
    for column, dimension in enumerate(dimensions):
        steps = [(choice, dimension.place(choice)) for choice in dimension.choices]
        steps = steps or [
            (dimension.high if place == 1 else dimension.value_at(place), place) for place in TICKS
        ]
        _axis(chart, column, [_short(value) for value, _ in steps], [place for _, place in steps])
    _axis(chart, len(dimensions), [_short(low + place * (high - low)) for place in TICKS], TICKS)
    chart.xaxis.ticker = FixedTicker(ticks=list(range(len(names))))
    chart.xaxis.major_label_overrides = {number: _words(name) for number, name in enumerate(names)}
    chart.yaxis.visible = chart.grid.visible = False
    return chart


def draw_curves(directory: SearchDirectory, trials: Sequence[Trial]) -> Any:
    """Draw the objective of each trial's first seed against the epoch."""
    plan = directory.plan
    ends = better_values(plan, trials, margin=0.5)
    shown = ranked(_scored(trials), plan.sign)[::-1]
    curves = [
        np.clip([row[plan.objective] for row in directory.runs(trial.number)[0].history], *ends).tolist()
        for trial in shown
    ]
    columns = {
        "xs": [list(range(1, len(curve) + 1)) for curve in curves],
        "ys": curves,
        "dash": ["dotted" if trial.status == "stopped" else "solid" for trial in shown],
        **_columns(plan, shown),
    }
    chart = blank("learning curves", "epoch", _words(plan.objective))
    chart.y_range = _around(ends)
    source = ColumnDataSource(columns)
    chart.multi_line("xs", "ys", color="color", line_dash="dash", line_width=2, source=source, name="trials")
    last = ColumnDataSource(
        {**columns, "x": [each[-1] for each in columns["xs"]], "y": [c[-1] for c in curves]}
    )
    chart.scatter("x", "y", marker="marker", color="color", size=7, source=last)
    chart.add_tools(hover(_rows(plan), chart, "trials"))
    return chart


def draw_importance(shares: Mapping[str, float]) -> Any:
    """Draw the share of the objective's variance that each setting alone explains."""
    names = [_words(name) for name in list(shares)[::-1]]
    chart = blank(
        "importance of each setting", "share of the objective's variance", "",
        y_range=names, x_range=(0, 1), height=110 + 36 * len(names),
    )  # fmt: skip
    source = ColumnDataSource({"y": names, "right": list(shares.values())[::-1]})
    chart.hbar("y", right="right", height=0.6, color=COLORS[0], source=source, name="shares")
    chart.add_tools(hover([("@y", "@right{0.00}")], chart, "shares"))
    return chart


def better_values(plan: Plan, trials: Sequence[Trial], margin: float = 0.0) -> tuple[float, float]:
    """Return the range of the better three quarters of the values: a diverged trial must not hide the others.

    Values outside are drawn at the edge.

    Args:
        plan: The settings of the search.
        trials: The trials.
        margin: Extension at each end, as a part of the range.
    """
    values = sorted(trial.known_value for trial in _scored(trials))
    quarter = len(values) // 4
    better = values[quarter:] if plan.sign > 0 else values[: len(values) - quarter]
    low, high = better[0], better[-1]
    if low == high:
        low, high = low - (abs(low) * 0.01 or 1.0), high + (abs(high) * 0.01 or 1.0)
    return low - margin * (high - low), high + margin * (high - low)


def _around(ends: tuple[float, float]) -> Range1d:
    """Return the range of an axis on which a marker at either end is whole."""
    space = 0.04 * (ends[1] - ends[0])
    return Range1d(ends[0] - space, ends[1] + space)


def _scatter(
    chart: Any,
    plan: Plan,
    trials: Sequence[Trial],
    x: Sequence[float],
    y: Sequence[float],
    ends: tuple[float, float] | None,
) -> None:
    """Draw a marker for each trial, at the edge if it is outside of `ends`; hovering shows it in full."""
    shown = list(y) if ends is None else np.clip(y, *ends).tolist()
    source = ColumnDataSource({"x": list(x), "y": shown, **_columns(plan, trials)})
    chart.scatter(
        "x",
        "y",
        marker="marker",
        fill_color="color",
        line_color="line",
        size=10,
        source=source,
        name="trials",
    )
    chart.add_tools(hover(_rows(plan), chart, "trials"))


def _columns(plan: Plan, trials: Sequence[Trial]) -> dict[str, list[Any]]:
    """Return what charts show of each trial: its colour, the darkest for the best, and its record for hovering."""
    low, high = better_values(plan, trials) if _scored(trials) else (0.0, 1.0)

    def color(trial: Trial) -> str:
        if trial.value is None:
            return FAILED_COLOR
        place = float(np.clip((trial.value - low) / (high - low), 0, 1))
        return str(Viridis256[round(200 * (1 - place if plan.sign > 0 else place))])

    return {
        "trial": [trial.number for trial in trials],
        "value": ["none" if trial.value is None else _short(trial.value) for trial in trials],
        "status": [f"{trial.status}: {trial.reason}" if trial.reason else trial.status for trial in trials],
        "marker": [MARKERS[trial.status] for trial in trials],
        "color": [color(trial) for trial in trials],
        "line": ["#333" if trial.value is not None else FAILED_COLOR for trial in trials],
        **{
            each.name: [_short(trial.values[each.name]) for trial in trials] for each in plan.dimensions
        },
    }  # fmt: skip


def _rows(plan: Plan) -> list[tuple[str, str]]:
    """Return the rows of a hover tool for trials."""
    settings = [(_words(each.name.split(".")[-1]), f"@{{{each.name}}}") for each in plan.dimensions]
    return [("trial", "@trial"), (_words(plan.objective), "@value"), *settings, ("status", "@status")]


def _axis(chart: Any, column: int, labels: Sequence[str], places: Sequence[float]) -> None:
    """Draw a vertical axis of parallel coordinates with its numbers."""
    chart.line([column, column], [0, 1], color="#999")
    at = {"x": [column] * len(labels), "y": list(places), "text": list(labels)}
    chart.text(
        "x", "y", "text", source=ColumnDataSource(at), x_offset=5, text_font_size="11px", text_baseline="middle",
        background_fill_color="white", background_fill_alpha=0.7,
    )  # fmt: skip


def _scored(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.value is not None]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
