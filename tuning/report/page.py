"""The results of a search: `trials.csv`, `best.json` and `report.html`."""

from typing import Any

from recipes.config import flatten
from recipes.report.page import Page, Picture, Table, settings_table, write_page
from recipes.runs.files import write_csv, write_json
from recipes.runs.recipe_lookup import find_recipe
from tuning.directory import SearchDirectory
from tuning.plan import Plan
from tuning.report.importance import importance
from tuning.report.plots import (
    plot_best_so_far,
    plot_curves,
    plot_importance,
    plot_parallel_coordinates,
    plot_rate_against_batch,
)
from tuning.space import EPOCHS, for_own_length, own_values, same_values
from tuning.trial import Trial, best_trial, ranked

PLOTS = {
    "best": (
        plot_best_so_far,
        "The value of each trial when it ended, and the best value so far. Triangles: stopped early.",
    ),
    "space": (
        plot_rate_against_batch,
        "Learning rate and batch size of each trial. Triangles: stopped early; crosses: failed.",
    ),
    "coordinates": (plot_parallel_coordinates, "Each line is a trial; the thick line is the best one."),
    "curves": (plot_curves, "The objective by epoch. Dotted lines: stopped early."),
}


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


def write_report(directory: SearchDirectory) -> None:
    """Write `report.html` with its plots.

    Raises:
        ValueError: No trial has a value.
    """
    trials, plan = directory.trials(), directory.plan
    best = best_trial(trials, plan.sign)
    if best is None:
        raise ValueError(f"{directory.path} has no trial with a value")
    rows = [
        {name: _short(value) for name, value in _row(plan, trial).items()}
        for trial in ranked(trials, plan.sign)
    ]
    write_page(
        directory.report_path,
        f"Search of {plan.name}: {', '.join(dimension.name for dimension in plan.dimensions)}",
        " ".join([_note(directory, best), *remarks(plan, trials, best)]).strip(),
        Page(
            _figures(plan, trials, best),
            pictures=_draw(directory, trials),
            tables=[
                Table("Trials, best first", rows),
                settings_table(f"best.json: settings of trial {best.number}", settings_of(plan, best)),
            ],
        ),
    )


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


def _draw(directory: SearchDirectory, trials: list[Trial]) -> list[Picture]:
    """Draw the plots and return them with their captions."""
    plots = directory.path / "plots"
    plots.mkdir(exist_ok=True)
    pictures = []
    for name, (plot, caption) in PLOTS.items():
        plot(directory, trials, plots / f"{name}.png")
        pictures.append(Picture(plots / f"{name}.png", caption))
    shares = importance(directory.plan.dimensions, trials)
    if shares:
        plot_importance(shares, plots / "importance.png")
        caption = "Share of the variance that each setting alone explains (functional ANOVA)."
        pictures.append(Picture(plots / "importance.png", caption))
    return pictures
