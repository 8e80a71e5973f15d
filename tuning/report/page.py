"""The results of a search: `trials.csv`, `best.json` and `report.html`."""

from pathlib import Path
from typing import Any

from recipes.config import flatten
from recipes.report.page import Chart, Page, Table, settings_table, write_page
from recipes.runs.files import write_csv, write_json
from recipes.runs.recipe_lookup import find_recipe
from tuning.directory import SearchDirectory
from tuning.plan import Plan
from tuning.report.charts import (
    draw_best_so_far,
    draw_curves,
    draw_importance,
    draw_parallel_coordinates,
    draw_rate_against_batch,
)
from tuning.report.importance import importance
from tuning.space import EPOCHS, for_own_length, own_values, same_values
from tuning.trial import Trial, best_trial, ranked

RELOAD_SECONDS = 10
"""Time after which the page of a running search is read again."""


def write_tables(directory: SearchDirectory) -> Trial | None:
    """Write `trials.csv`, and `best.json` if there is a best trial; return the best trial."""
    trials, plan = directory.trials(), directory.plan
    if trials:
        write_csv(directory.path / "trials.csv", [_row(plan, trial) for trial in trials])
    best = best_trial(trials, plan.sign)
    if best is not None:
        write_json(directory.best_path, {"recipe": plan.name, **settings_of(plan, best)})
    return best


def settings_of(plan: Plan, trial: Trial) -> dict[str, Any]:
    """Return the settings of a trial as nested dicts, for training of the recipe's own length."""
    return for_own_length(find_recipe(plan.name).recipe, plan.recipe, plan.dimensions, trial.values)


def remarks(plan: Plan, trials: list[Trial], best: Trial) -> list[str]:
    """Return the limits of the result, one sentence each: the baseline, edges of the space, the length."""
    found = [_compared_with_own_settings(plan, trials, best)]
    if best.status != "finished":
        found.append(f"No trial finished: trial {best.number} was stopped ({best.reason}).")
    found += [
        f"{each.name} {_short(best.values[each.name])} is at the edge of the search space, {each.text}."
        for each in plan.dimensions
        if each.at_edge(best.values[each.name])
    ]
    epochs, own = plan.recipe.training.epochs, dict(flatten(settings_of(plan, best)))[EPOCHS]
    if epochs != own and EPOCHS not in best.values:
        found.append(f"The trials had {epochs} epochs; best.json is for the recipe's own {own}.")
    return found


def _compared_with_own_settings(plan: Plan, trials: list[Trial], best: Trial) -> str:
    values = own_values(plan.recipe, plan.dimensions)
    own = next((trial for trial in trials if values and same_values(trial.values, values)), None)
    if own is None or own.status != "finished":
        return f"No finished trial had the recipe's own settings: trial {best.number} may be no better."
    if plan.sign * best.known_value <= plan.sign * own.known_value:
        return "No trial was better than the recipe's own settings."
    return f"The recipe's own settings reached {own.value:.6g} in trial {own.number}."


def _row(plan: Plan, trial: Trial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "status": trial.status,
        **{dimension.name: trial.values[dimension.name] for dimension in plan.dimensions},
        plan.objective: "" if trial.value is None else trial.value,
        "epochs": trial.epochs,
        "seconds": round(trial.seconds, 1),
        "saved_seconds": trial.saved_seconds,
        "memory_mib": trial.memory_mib,
        "reason": trial.reason,
    }


def write_report(directory: SearchDirectory, *, running: bool = False) -> None:
    """Write `report.html`.

    Args:
        directory: The search directory.
        running: Whether the search runs: a browser then reads the page again and again.

    Raises:
        ValueError: No trial has a value.
    """
    trials, plan = directory.trials(), directory.plan
    best = best_trial(trials, plan.sign)
    if best is None:
        raise ValueError(f"{directory.path} has no trial with a value")
    title = f"Search of {Path(plan.name).name}: {', '.join(dimension.name for dimension in plan.dimensions)}"
    page = Page(
        _figures(plan, trials, best),
        remarks=remarks(plan, trials, best),
        charts=_draw(directory, trials),
        tables=[
            Table("Trials, best first", [_short_row(plan, trial) for trial in ranked(trials, plan.sign)]),
            settings_table(f"best.json: settings of trial {best.number}", settings_of(plan, best)),
        ],
    )
    reload_seconds = RELOAD_SECONDS if running else None
    write_page(directory.report_path, title, _note(directory, best), page, reload_seconds=reload_seconds)


def _short_row(plan: Plan, trial: Trial) -> dict[str, str]:
    """Return the row of a trial in the report, narrow enough to show its reason on a screen."""
    row = _row(plan, trial)
    names = ["trial", "status", plan.objective, *(each.name for each in plan.dimensions), "epochs", "seconds"]
    return {name.split(".")[-1].replace("_", " "): _short(row[name]) for name in (*names, "reason")}


def _note(directory: SearchDirectory, best: Trial) -> str:
    """Return the warning of the best run, for example that its data is the offline sample."""
    run = directory.runs(best.number)[0]
    return str(run.metrics.get("note", "")) if run.finished else ""


def _figures(plan: Plan, trials: list[Trial], best: Trial) -> dict[str, str]:
    seconds = sum(trial.seconds for trial in trials)
    ends = [trial.status for trial in trials]
    return {
        f"best {plan.objective.replace('_', ' ')}": f"{best.value:.5g}",
        "best trial": str(best.number),
        **{name.split(".")[-1].replace("_", " "): _short(value) for name, value in best.values.items()},
        "trials": f"{len(trials)}: " + ", ".join(f"{ends.count(end)} {end}" for end in sorted(set(ends))),
        "training time": f"{seconds:.0f} s",
        "saved by stopping trials early": f"{sum(trial.saved_seconds for trial in trials):.0f} s",
        "algorithm": plan.method.algorithm,
    }


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _draw(directory: SearchDirectory, trials: list[Trial]) -> list[Chart]:
    """Draw the charts."""
    over_time = [draw(directory, trials) for draw in (draw_best_so_far, draw_rate_against_batch)]
    shares = importance(directory.plan.dimensions, trials)
    caption = "Share of the variance that each setting alone explains (functional ANOVA)."
    return [
        Chart(over_time, "Triangles: stopped early; crosses: failed. Values off the axis are at its edge."),
        Chart(
            [draw_parallel_coordinates(directory, trials)],
            "A line is a trial; the thick line is the best one.",
        ),
        Chart([draw_curves(directory, trials)], "By epoch. Dotted lines: stopped early."),
        *([Chart([draw_importance(shares)], caption)] if shares else []),
    ]
