"""Train a classifier of 28 x 28 grey images: MNIST, its relatives, or your own.

    make train-mnist
    python -m recipes train mnist-cnn --training.epochs 3

`mnist-cnn` as it comes gave 99.54 ± 0.03 % of MNIST's test images (3 seeds), after some 150 seconds
on 2 cores; `recipes/catalog.py` has the others.

Settings, data, model, train, test, report: it reads in that order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import numpy.typing as npt

from recipes.config import IMAGE_SHAPE, ImageData, ImageRecipe, UserError
from recipes.data.augmentation import warning
from recipes.data.batches import evaluation_images, training_images
from recipes.data.examples import Examples, ImageSource, with_few_labels
from recipes.data.images import ImageDataset, load_images, load_test_images
from recipes.distribution import join, on_one_device
from recipes.evaluation import ClassificationScores, most_confident_mistakes, score_classification
from recipes.losses import build_loss
from recipes.models.image import build_classifier
from recipes.models.saved import load_model
from recipes.pretraining import pretrain
from recipes.reopened import Change, Reopened, pruned_in_training
from recipes.report.classification import plot_confusion, plot_mistakes
from recipes.report.curves import plot_learning_curves
from recipes.report.page import Picture, Table, settings_table, write_page
from recipes.run import Run, check_scored, open_run
from recipes.settings import recorded_recipe, with_settings
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

MISTAKES_SHOWN = 32
SPEED_BATCH_SIZE = 256


def train(  # noqa: PLR0913 - all there is to say of a training
    name: str,
    recipe: ImageRecipe,
    path: Path,
    *,
    resume: bool = False,
    finish: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    model: keras.Model | None = None,
    final: bool = True,
) -> Run:
    """Train a recipe to its end and write the run directory.

    Args:
        name: The recipe's name.
        recipe: Its settings.
        path: The run directory; an old run there is replaced unless it is resumed.
        resume: Continue the unfinished run there.
        finish: On resume, train no further: score the best of the epochs it has.
        callbacks: Further callbacks, called after the metrics of an epoch are known.
        model: A model to go on with, as one that was pruned; None builds the recipe's.
        final: Score the test part and write the report. A trial of a search and a step of a pruning do
            neither: what chooses between runs must not see the test part.

    Returns:
        The finished run.

    Raises:
        UserError: Data that can't be had or read, a batch larger than the data, or, on resume,
            other settings or data than the run began with.
    """
    strategy = join(name, recipe)
    fix_seed(recipe.training.seed)
    dataset = load_images(recipe.data)
    labelled = with_few_labels(
        dataset.train, recipe.data.labels_per_class, recipe.data.split_seed, dataset.source.classes
    )
    batches = training_images(
        labelled,
        len(dataset.source.classes),
        batch_sizes(recipe, len(labelled)),
        recipe.augmentation,
        recipe.training.seed,
    )
    classes = dataset.source.classes
    teacher = load_teacher(recipe, lambda run: run.metrics["classes"], list(classes))
    with building(recipe.training, strategy):
        model = model or build_classifier(recipe.model, IMAGE_SHAPE, len(classes))
    rate = compile_model(
        model,
        recipe,
        loss=build_loss(recipe.loss),
        metrics=["accuracy"],
        sizes=batches.sizes,
        jit_pays=False,  # XLA makes small convolutions about 3 times slower on a CPU
    )
    with open_run(path, name, recipe, _about(dataset), resume=resume, steps=batches.sizes.total_steps) as run:
        print(f"{name}: {model.count_params():,} parameters; {_describe_data(dataset, labelled)}")
        print(warning(recipe.augmentation, classes), end="", flush=True)
        if recipe.pretraining.epochs:
            unlabelled, validation = dataset.train.images, dataset.validation.images
            pretrain(name, recipe, model, unlabelled, validation, run.path / "pretraining", _about(dataset))
        outcome = fit(
            model,
            recipe,
            run,
            batches,
            evaluation_images(dataset.validation, len(classes)),
            rate,
            finish=finish,
            teacher=teacher,
            after_history=callbacks,
        )
        model = on_one_device(model)
        save_model(model, run)
        if not final:
            run.finish(_metrics(model, name, run, dataset, outcome))
            return run
        change = pruned_in_training(model, recipe, _examples(dataset))
        _score_and_report(model, name, run, dataset, outcome, change)
    return run


def reopen(run: Run) -> Reopened:
    """Open a finished run again, to make something of its model.

    Raises:
        UserError: An unfinished run, or data that can't be had any more.
    """
    # What goes on from it has been pre-trained.
    kept = {"data": {"source": run.metrics["data_source"]}, "pretraining": {"epochs": 0}}
    recipe = cast(ImageRecipe, with_settings(recorded_recipe(run.config), kept))
    dataset = load_images(recipe.data)
    name = run.metrics["recipe"]

    def validate(model: keras.Model) -> dict[str, float]:
        probabilities = predict(model, dataset.validation)
        return score_classification(probabilities, dataset.validation.labels).summary("validation")

    return Reopened(
        recipe=recipe,
        about=_about(dataset),
        validation=evaluation_images(dataset.validation, len(dataset.source.classes)),
        examples=_examples(dataset),
        loss=build_loss(recipe.loss),
        validate=validate,
        close=lambda model, new, outcome, change: _score_and_report(
            model, name, new, dataset, outcome, change
        ),
    )


def evaluate(run: Run, data: ImageData, *, strict: bool = False) -> dict[str, Any]:
    """Score a finished run on the test part of any source with the same classes.

    Args:
        run: The run.
        data: What to score on.
        strict: Refuse other data than the run was trained on, instead of saying so in `note`.

    Returns:
        `dataset`, `note`, `examples`, and test_loss, test_accuracy, test_precision, test_recall, test_f1.

    Raises:
        UserError: An unfinished run, or a source that can't be read, has other classes or, if `strict`, has
            changed.
    """
    metrics = run.metrics
    source, examples = load_test_images(data, metrics["data_source"])
    if list(source.classes) != metrics["classes"]:
        raise UserError(
            f"{run.path} knows the classes {', '.join(metrics['classes'])}. Received: {', '.join(source.classes)}"
        )
    same = source.origin == metrics["data_source"]
    other = check_scored(run, _about(load_images(data)) if same else {"source": source.origin}, strict=strict)
    scores = score_classification(predict(load_model(run.model_path), examples), examples.labels)
    return {
        "dataset": source.name,
        "note": " ".join(filter(None, (source.note, other))),
        "examples": len(examples),
        **scores.summary("test"),
    }


def predict(model: keras.Model, examples: Examples) -> npt.NDArray[np.float32]:
    """Return class probabilities (n, classes)."""
    probabilities: npt.NDArray[np.float32] = model.predict(
        evaluation_images(examples, model.output_shape[-1]), verbose=0
    )
    return probabilities


def _examples(dataset: ImageDataset) -> npt.NDArray[np.float32]:
    """Return a batch to measure speed on."""
    images: npt.NDArray[np.float32] = dataset.validation.images[:SPEED_BATCH_SIZE].astype(np.float32)
    return images


def _about(dataset: ImageDataset) -> dict[str, Any]:
    return {
        "name": dataset.source.name,
        "source": dataset.source.origin,
        "note": dataset.source.note,
        "fingerprint": dataset.train.fingerprint(),
        "train_examples": len(dataset.train),
        "validation_examples": len(dataset.validation),
    }


def _describe_data(dataset: ImageDataset, labelled: Examples) -> str:
    few = f" ({len(labelled):,} with labels)" if len(labelled) < len(dataset.train) else ""
    parts = f"{len(dataset.train):,} training{few} and {len(dataset.validation):,} validation images"
    warning = f"\nWARNING: {dataset.source.note}" if dataset.source.note else ""
    return f"{dataset.source.name}, {parts}{warning}"


def _metrics(
    model: keras.Model, name: str, run: Run, dataset: ImageDataset, outcome: Outcome
) -> dict[str, Any]:
    """Return all metrics but those of the test part."""
    source = dataset.source
    scores = score_classification(predict(model, dataset.validation), dataset.validation.labels)
    return {
        **common_metrics(model, name, run, outcome, dataset=source.name, data_source=source.origin),
        **({"note": source.note} if source.note else {}),
        "classes": list(source.classes),
        **scores.summary("validation"),
    }


def _score_and_report(
    model: keras.Model,
    name: str,
    run: Run,
    dataset: ImageDataset,
    outcome: Outcome,
    change: Change | None,
) -> None:
    source, test = dataset.source, dataset.read_test()
    probabilities = predict(model, test)
    test_scores = score_classification(probabilities, test.labels)
    metrics = {
        **_metrics(model, name, run, dataset, outcome),
        **test_scores.summary("test"),
        "test_by_class": test_scores.by_class(source.classes),
    }
    pictures = _draw(run, source, test, probabilities, test_scores, outcome.best_epoch)
    changed, tables = change.describe(model) if change else ({}, [])
    _write_report(run, metrics | changed, [*(change.pictures if change else ()), *pictures], tables)
    run.finish(metrics | changed)


def _draw(
    run: Run,
    source: ImageSource,
    test: Examples,
    probabilities: npt.NDArray[np.float32],
    scores: ClassificationScores,
    best_epoch: int,
) -> list[Picture]:
    curves = run.plots / "learning_curves.png"
    plot_learning_curves(run.history, "accuracy", best_epoch, curves)
    confusion = run.plots / "confusion_matrix.png"
    plot_confusion(scores.confusion, source.classes, confusion)
    wrong = most_confident_mistakes(probabilities, test.labels, MISTAKES_SHOWN)
    mistakes = run.plots / "mistakes.png"
    plot_mistakes(test.images[wrong], test.labels[wrong], probabilities[wrong], source.classes, mistakes)
    return [
        Picture(
            curves, "Loss, accuracy and learning rate by epoch; the dotted line is the epoch that was kept."
        ),
        Picture(
            mistakes,
            "The test images that were most confidently misclassified: true class, prediction, its probability.",
        ),
        Picture(
            confusion, "Confusion matrix of the test images: rows are true classes, columns predictions."
        ),
    ]


def _write_report(run: Run, metrics: dict[str, Any], pictures: list[Picture], tables: list[Table]) -> None:
    figures = {
        "test accuracy": f"{100 * metrics['test_accuracy']:.2f} %",
        "validation accuracy": f"{100 * metrics['validation_accuracy']:.2f} %",
        "test loss": f"{metrics['test_loss']:.4f} nats",
        "parameters": f"{metrics['parameters']:,}",
        "kept epoch": f"{metrics['best_epoch']} of {metrics['epochs']}",
        "training time": f"{metrics['train_seconds']:.0f} s",
        "dataset": metrics["dataset"],
    }
    by_class = [
        {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in row.items()}
        for row in metrics["test_by_class"]
    ]
    write_page(
        run.path / "report.html",
        title=f"{metrics['recipe']} on {metrics['dataset']}",
        note=metrics.get("note", ""),
        figures=figures,
        pictures=pictures,
        tables=[
            *tables,
            Table("Test figures by class", by_class),
            settings_table("Settings", run.config),
        ],
    )
