"""What a search leaves for people: `trials.csv`, `best.json`, `report.html`."""

import math
from collections.abc import Mapping
from typing import Any

from recipes.config import flatten
from recipes.report.page import Page, Picture, settings_table, write_page
from recipes.report.page import Table as PageTable
from recipes.runs.files import write_csv, write_json
from recipes.runs.settings import find_recipe
from tuning.importance import importance
from tuning.pictures import (
    plot_best_so_far,
    plot_curves,
    plot_importance,
    plot_parallel_coordinates,
    plot_rate_against_batch,
)
from tuning.plan import Plan, SearchDirectory, Trial, best_trial, ranked
from tuning.space import EPOCHS, Value, for_own_length, own_values


def write_tables(search: SearchDirectory, plan: Plan) -> Trial | None:
    """Write `trials.csv`, and `best.json` if there is a best trial, which is returned."""
    trials = search.trials()
    if trials:
        write_csv(search.table_path, [_row(plan, trial) for trial in trials])
    best = best_trial(trials, plan.sign)
    if best is not None:
        write_json(search.best_path, {"recipe": plan.name, **settings_of(plan, best)})
    return best


def settings_of(plan: Plan, trial: Trial) -> dict[str, Any]:
    """Return the settings of a trial as nested dicts, for a training of the recipe's own length."""
    return for_own_length(find_recipe(plan.name).recipe, plan.recipe, plan.dimensions, trial.values)


def remarks(plan: Plan, trials: list[Trial], best: Trial) -> list[str]:
    """Return what a reader of the best trial's value must know: a sentence each."""
    said = [_beside_own_settings(plan, trials, best)]
    if best.status != "finished":
        said.append(f"No trial was finished: trial {best.number} was stopped ({best.reason}).")
    said += [
        f"{each.name} {_short(best.values[each.name])} is at the edge of what was searched, {each.text}."
        for each in plan.dimensions
        if each.at_edge(best.values[each.name])
    ]
    epochs, own = plan.recipe.training.epochs, dict(flatten(settings_of(plan, best)))[EPOCHS]
    if epochs != own and EPOCHS not in best.values:
        said.append(f"The trials had {epochs} epochs; best.json is for the recipe's own {own}.")
    return said


def _beside_own_settings(plan: Plan, trials: list[Trial], best: Trial) -> str:
    values = own_values(plan.recipe, plan.dimensions)
    own = next((trial for trial in trials if values and _same(trial.values, values)), None)
    if own is None or own.status != "finished":
        return f"No finished trial had the recipe's own settings: trial {best.number} may be no better."
    if plan.sign * best.known_value <= plan.sign * own.known_value:
        return "No trial beat the recipe's own settings."
    return f"The recipe's own settings reached {own.value:.6g} in trial {own.number}."


def _same(values: Mapping[str, Value], others: Mapping[str, Value]) -> bool:
    """Compare settings; keras-tuner's service rounds to float32."""
    return all(
        math.isclose(value, float(others[name]), rel_tol=1e-6)
        if isinstance(value, float)
        else value == others[name]
        for name, value in values.items()
    )


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


def write_report(search: SearchDirectory, plan: Plan) -> None:
    """Draw the pictures of a search and write its page. At least one trial has a value."""
    trials = search.trials()
    best = best_trial(trials, plan.sign)
    if best is None:
        raise ValueError(f"{search.path} has no trial with a value")
    parts = importance(plan.dimensions, trials)
    write_page(
        search.report_path,
        f"Search of {plan.name}: {', '.join(dimension.name for dimension in plan.dimensions)}",
        " ".join([_note(search, best), *remarks(plan, trials, best)]).strip(),
        Page(
            _figures(plan, trials, best),
            pictures=_draw(search, plan, trials, parts),
            tables=[
                PageTable("Trials, best first", _ranked(plan, trials)),
                settings_table(f"best.json: settings of trial {best.number}", settings_of(plan, best)),
            ],
        ),
    )


def _note(search: SearchDirectory, best: Trial) -> str:
    """Return what the best run says must be known first: that its data is a stand-in, say."""
    run = search.runs(best.number)[0]
    return str(run.metrics.get("note", "")) if run.finished else ""


def _figures(plan: Plan, trials: list[Trial], best: Trial) -> dict[str, str]:
    seconds = sum(trial.seconds for trial in trials)
    ends = [trial.status for trial in trials]
    return {
        f"best {plan.objective.replace('_', ' ')}": f"{best.value:.5g}",
        "in trial": str(best.number),
        **{name.split(".")[-1].replace("_", " "): _short(value) for name, value in best.values.items()},
        "trials": f"{len(trials)}: " + ", ".join(f"{ends.count(end)} {end}" for end in sorted(set(ends))),
        "time in trials": f"{seconds:.0f} s",
        "saved by ending trials early": f"{sum(trial.saved_seconds for trial in trials):.0f} s",
        "algorithm": plan.method.algorithm,
    }


def _ranked(plan: Plan, trials: list[Trial]) -> list[dict[str, Any]]:
    return [
        {name: _short(value) for name, value in _row(plan, trial).items()}
        for trial in ranked(trials, plan.sign)
    ]


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _draw(search: SearchDirectory, plan: Plan, trials: list[Trial], parts: dict[str, float]) -> list[Picture]:
    plots = search.path / "plots"
    plots.mkdir(exist_ok=True)
    paths = {name: plots / f"{name}.png" for name in ("best", "space", "coordinates", "importance", "curves")}
    plot_best_so_far(plan, trials, paths["best"])
    plot_rate_against_batch(plan, trials, paths["space"])
    plot_parallel_coordinates(plan, trials, paths["coordinates"])
    plot_curves(plan, trials, lambda trial: _curve(search, plan, trial), paths["curves"])
    captions = {
        "best": "Each trial when it ended, and the best until then. Triangles were ended early.",
        "space": "Where the trials were; a triangle was ended early, a cross failed.",
        "importance": "Functional ANOVA of a random forest; what is missing to 1 is due to settings together.",
        "coordinates": "A line is a trial; the thick one is the best.",
        "curves": "The objective by epoch; dotted lines were ended early.",
    }
    if parts:
        plot_importance(parts, paths["importance"])
    return [Picture(paths[name], text) for name, text in captions.items() if name != "importance" or parts]


def _curve(search: SearchDirectory, plan: Plan, trial: Trial) -> list[float]:
    return [row[plan.objective] for row in search.runs(trial.number)[0].history]
