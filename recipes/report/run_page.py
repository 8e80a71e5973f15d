"""The report of a run: `report.html`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recipes.catalog import CATALOG
from recipes.command_line import shell_command
from recipes.config import Recipe, UserError, flatten, from_dict, to_dict
from recipes.report.charts import draw_learning_curves
from recipes.report.page import Chart, Page, Table, Text, settings_table, write_page
from recipes.runs.directory import Run
from recipes.runs.recipe_lookup import find_recipe

MOVES = ("flip", "rotate", "scale", "shift", "crop", "shear", "elastic")


def write_report(
    run: Run, title: str, metrics: Mapping[str, Any], page: Page, *, plotted_metric: str, served: bool
) -> None:
    """Write a run's report.

    Args:
        run: The run; all its files but metrics.json are written.
        title: The recipe and the dataset, for people.
        metrics: The content of metrics.json to be.
        page: What its task shows.
        plotted_metric: The metric to draw beside the loss.
        served: Whether the model can be exported.
    """
    made_from, kept, rows = run.made_from, metrics["best_epoch"], run.history
    caption = "By epoch. The dotted line marks the epoch that was kept."
    figures = {
        **page.figures,
        "parameters": f"{metrics['parameters']:,}",
        "kept epoch": f"{kept} of {metrics['epochs']}",
        "training time": f"{metrics['train_seconds']:.0f} s",
        "dataset": metrics["dataset"],
    }
    changed = changed_settings(run)
    remarks = [
        _origin(made_from),
        _published(run, metrics, len(changed)),
        *_better_validation(run, rows, kept),
    ]
    settings = [Table("Settings that differ from the recipe's", changed)] if changed else []
    curves = Chart(draw_learning_curves(rows, plotted_metric, kept), caption)
    write_page(
        run.path / "report.html",
        f"{title}, {change.lower()}" if (change := _change(made_from)) else title,
        str(metrics.get("note", "")),
        replace(
            page,
            figures=figures,
            remarks=[*filter(None, remarks), *page.remarks],
            charts=[curves, *page.charts],
            texts=[*page.texts, *_how_made(run), _next_steps(run, served=served)],
            tables=[
                *page.tables,
                *settings,
                settings_table("All settings", run.config),
                settings_table("Command, versions and data", {"run": str(run.path), **run.environment}),
            ],
        ),
    )


def changed_settings(run: Run) -> list[dict[str, Any]]:
    """Return a row for each setting that differs from the recipe's own; none if the recipe is not found."""
    config = run.config
    try:
        own: Recipe = find_recipe(config["recipe"]).recipe
        now = from_dict(type(own), {name: value for name, value in config.items() if name != "recipe"})
    except UserError:
        return []
    before, after = (dict(flatten(to_dict(recipe.resolved()))) for recipe in (own, now))
    return [
        {"setting": name, "this run": value, "the recipe": before.get(name)}
        for name, value in after.items()
        if value != before.get(name) and not (name.startswith("pruning.") and before.get(name) is None)
    ]


def _change(made_from: Mapping[str, Any]) -> str:
    """Return how a run's model was changed, "" for a run of its own training."""
    return "" if not made_from else "Quantised" if "weights" in made_from else "Pruned"


def _origin(made_from: Mapping[str, Any]) -> str:
    return f"{_change(made_from)} from {made_from['run']}." if made_from else ""


def _published(run: Run, metrics: Mapping[str, Any], changes: int) -> str:
    """Return the recipe's result in the catalog, and whether this run can be compared with it."""
    entry = CATALOG.get(run.config["recipe"])
    if entry is None:
        return ""
    reasons = [
        "has other data" if metrics.get("note") else "",
        f"has {changes} other setting{'s' if changes > 1 else ''}" if changes else "",
        "is not of the recipe's own training" if run.made_from else "",
    ]
    why = ", ".join(filter(None, reasons))
    comparable = f"This run {why}, so it need not reach it." if why else "This run has the same settings."
    return f"Published result of the recipe: {entry.measured}. {comparable}"


def _better_validation(run: Run, rows: Sequence[Mapping[str, float]], kept: int) -> list[str]:
    """Return why the validation loss of the epoch that was kept is below the training loss, if it is."""
    row = next((row for row in rows if row["epoch"] == kept), {})
    training, validation = row.get("loss"), row.get("validation_loss")
    if training is None or validation is None or not validation < training:
        return []
    groups = run.config
    moves, penalties = groups.get("augmentation", {}), groups.get("regularization", {})
    used = [name for name in MOVES if moves.get(name) not in (None, "none", 0)]
    moved = kept <= moves.get("end_fraction", 1) * groups["training"]["epochs"]
    dropout = groups.get("model", {}).get("dropout")
    causes = [
        f"augmentation ({', '.join(used)})" if used and moved else "",
        f"dropout of {dropout}" if dropout else "",
        *(f"the {name.upper()} penalty" for name in ("l1", "l2") if penalties.get(name)),
        "weights that change during the epoch",
    ]
    return [
        f"The validation loss, {validation:.4f}, is below the training loss, {training:.4f}: the training loss is "
        f"measured with {', '.join(filter(None, causes))}; the validation loss without, after the epoch."
    ]


def _how_made(run: Run) -> list[Text]:
    """Return when and by which command the run began; earlier versions did not record it."""
    environment = run.environment
    if "command" not in environment:
        return []
    return [Text(f"Begun on {environment['started']} by", environment["command"])]


def _next_steps(run: Run, *, served: bool) -> Text:
    """Return commands that use the run."""
    name, made_from = run.config["recipe"], run.made_from
    steps = {
        "Score the model again": ("recipes", "evaluate", run.path),
        "Serve it: export, then python -m serving serve": ("serving", "export", run.path) if served else (),
        "Generate text": ("recipes", "generate", run.path) if run.vocabulary_path.exists() else (),
        "Give it int8 weights": ("recipes", "quantize", run.path) if "weights" not in made_from else (),
        "Search better settings": ("tuning", "search", name) if not made_from else (),
    }
    lines = [f"# {what}\n{shell_command(*command)}" for what, command in steps.items() if command]
    return Text(f"What to do next, in {Path.cwd()}", "\n".join(lines))
