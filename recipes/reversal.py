"""Train an encoder-decoder Transformer to write sequences backwards: a task whose right answer is known.

    python -m recipes train seq2seq-reverse

Settings, data, model, train, test, report: it reads in that order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np

from recipes.config import ReversalData, SequenceRecipe
from recipes.data.sequences import (
    END,
    FIRST_SYMBOL,
    START,
    Ids,
    Reversals,
    TrainingReversals,
    evaluation_batches,
    held_out,
)
from recipes.distribution import join, on_one_device
from recipes.models.encoder_decoder import EncoderDecoder
from recipes.models.saved import load_model
from recipes.reopened import Change, Reopened, pruned_in_training
from recipes.report.curves import plot_learning_curves
from recipes.report.page import Picture, Table, settings_table, write_page
from recipes.run import Run, check_scored, open_run
from recipes.settings import recorded_recipe
from recipes.training import (
    Outcome,
    batch_sizes,
    building,
    common_metrics,
    compile_model,
    fit,
    fix_seed,
    load_teacher,
    save_model,
)

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
VALIDATION_SEED, TEST_SEED = 0, 1
SPEED_BATCH_SIZE = 64
EXAMPLES_SHOWN = 8


def train(  # noqa: PLR0913 - all there is to say of a training
    name: str,
    recipe: SequenceRecipe,
    path: Path,
    *,
    resume: bool = False,
    finish: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    model: keras.Model | None = None,
    final: bool = True,
) -> Run:
    """Train a recipe to its end and write the run directory. Arguments and errors as `recipes.mnist.train`."""
    strategy = join(name, recipe)
    fix_seed(recipe.training.seed)
    data = recipe.data
    sizes = batch_sizes(recipe, recipe.training.windows_per_epoch)
    batches = TrainingReversals(data, sizes, recipe.training.seed)
    teacher = load_teacher(recipe, lambda run: run.config["data"]["symbols"], data.symbols)
    with building(recipe.training, strategy):
        model = model or EncoderDecoder(
            recipe.model, FIRST_SYMBOL + data.symbols, data.longest, data.longest + 1
        )
    rate = compile_model(
        model,
        recipe,
        loss=LOSS,
        weighted_metrics=["accuracy"],
        sizes=sizes,
        jit_pays=True,
    )
    with open_run(path, name, recipe, _about(data), resume=resume, steps=sizes.total_steps) as run:
        print(f"{name}: {model.count_params():,} parameters; sequences of up to {data.longest}", flush=True)
        validation = evaluation_batches(held_out(data, VALIDATION_SEED))
        outcome = fit(
            model,
            recipe,
            run,
            batches,
            validation,
            rate,
            finish=finish,
            teacher=teacher,
            after_history=callbacks,
        )
        model = on_one_device(model)
        save_model(model, run)
        if not final:
            run.finish(_metrics(model, name, run, data, outcome))
            return run
        change = pruned_in_training(model, recipe, _examples(data))
        _score_and_report(model, name, run, data, outcome, change)
    return run


def reopen(run: Run) -> Reopened:
    """Open a finished run again, to make something of its model.

    Raises:
        UserError: An unfinished run.
    """
    name = run.metrics["recipe"]
    recipe = cast(SequenceRecipe, recorded_recipe(run.config))
    data = recipe.data
    reversals = held_out(data, VALIDATION_SEED)
    return Reopened(
        recipe=recipe,
        about=_about(data),
        validation=evaluation_batches(reversals),
        examples=_examples(data),
        loss=LOSS,
        validate=lambda model: _named("validation", score(model, reversals)[0]),
        close=lambda model, new, outcome, change: _score_and_report(model, name, new, data, outcome, change),
    )


def _about(data: ReversalData) -> dict[str, Any]:
    return {"name": "reversal", "source": data.source, "note": "", "fingerprint": "drawn from the seeds"}


def _examples(data: ReversalData) -> tuple[Ids, Ids]:
    """Return a batch to measure speed on."""
    reversals = held_out(data, VALIDATION_SEED)
    return reversals.source[:SPEED_BATCH_SIZE], reversals.previous[:SPEED_BATCH_SIZE]


def evaluate(run: Run, data: ReversalData, *, strict: bool = False) -> dict[str, Any]:
    """Score a finished run on the test sequences: loss, accuracy and the part written without a fault."""
    _ = run.metrics  # refuses an unfinished run
    note = check_scored(run, _about(data), strict=strict)
    model = load_model(run.model_path)
    scores, _ = score(model, held_out(data, TEST_SEED))
    return {"dataset": "reversal", "note": note, "sequences": data.held_out, **_named("test", scores)}


def write(model: keras.Model, source: Ids) -> Ids:
    """Write a sequence for each source, the likeliest symbol at each place, (n, target_length)."""
    length = model.target_length
    written = np.zeros((len(source), length + 1), np.int32)
    written[:, 0] = START
    for place in range(length):
        logits = model.predict((source, written[:, :-1]), verbose=0)
        written[:, place + 1] = logits[:, place].argmax(axis=-1)
    return written[:, 1:]


def score(model: keras.Model, reversals: Reversals) -> tuple[dict[str, float], Ids]:
    """Score a model, in nats and parts of 1, and return what it wrote.

    Returns:
        loss and accuracy of each symbol told from the right ones before it; exact_match, the part of
        the sequences that it writes by itself without a fault. And the sequences, (n, target_length).
    """
    logits = model.predict((reversals.source, reversals.previous), verbose=0).astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    losses = -np.take_along_axis(logs, reversals.target[..., np.newaxis], axis=-1)[..., 0]
    counts = reversals.weights > 0
    written = write(model, reversals.source)
    scores = {
        "loss": float(losses[counts].mean()),
        "accuracy": float((logits.argmax(axis=-1) == reversals.target)[counts].mean()),
        "exact_match": float(((written == reversals.target) | ~counts).all(axis=1).mean()),
    }
    return scores, written


def _named(part: str, scores: dict[str, float]) -> dict[str, float]:
    return {f"{part}_{name}": round(value, 6) for name, value in scores.items()}


def _metrics(model: keras.Model, name: str, run: Run, data: ReversalData, outcome: Outcome) -> dict[str, Any]:
    """Return all metrics but those of the test part."""
    scores, _ = score(model, held_out(data, VALIDATION_SEED))
    common = common_metrics(model, name, run, outcome, dataset="reversal", data_source=data.source)
    return common | _named("validation", scores)


def _score_and_report(
    model: keras.Model, name: str, run: Run, data: ReversalData, outcome: Outcome, change: Change | None
) -> None:
    test = held_out(data, TEST_SEED)
    test_scores, written = score(model, test)
    metrics = {**_metrics(model, name, run, data, outcome), **_named("test", test_scores)}
    changed, tables = change.describe(model) if change else ({}, [])
    metrics |= changed
    curves = run.plots / "learning_curves.png"
    plot_learning_curves(run.history, "accuracy", outcome.best_epoch, curves)
    shown = [
        {"sequence": _spell(source), "written": _spell(answer)}
        for source, answer in zip(test.source[:EXAMPLES_SHOWN], written, strict=False)
    ]
    write_page(
        run.path / "report.html",
        title=f"{name} on reversal",
        note="",
        figures={
            "written without a fault": f"{100 * metrics['test_exact_match']:.1f} %",
            "test accuracy": f"{100 * metrics['test_accuracy']:.2f} %",
            "test loss": f"{metrics['test_loss']:.4f} nats",
            "parameters": f"{metrics['parameters']:,}",
            "training time": f"{metrics['train_seconds']:.0f} s",
        },
        pictures=[
            *(change.pictures if change else ()),
            Picture(
                curves,
                "Loss, accuracy and learning rate by epoch; the dotted line is the epoch that was kept.",
            ),
        ],
        tables=[
            *tables,
            Table("Sequences and what was written for them", shown),
            settings_table("Settings", run.config),
        ],
    )
    run.finish(metrics)


def _spell(ids: Ids) -> str:
    """Return symbols as numbers, up to the end."""
    end = np.flatnonzero(ids < FIRST_SYMBOL)
    symbols = ids[: end[0]] if len(end) else ids
    stop = "" if not len(end) or ids[end[0]] != END else " ."
    return " ".join(str(symbol - FIRST_SYMBOL) for symbol in symbols) + stop
