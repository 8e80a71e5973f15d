"""Training language models for real, small: learning, resuming, fine-tuning, scores."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from recipes.config import (
    EarlyStopping,
    Optimizer,
    RecurrentModel,
    RecurrentRecipe,
    Sampling,
    TextData,
    TextTraining,
    TransformerModel,
    TransformerRecipe,
    UserError,
    with_settings,
)
from recipes.data.tokens import load_text
from recipes.generation.text_generator import TextGenerator, load
from recipes.language_model import LanguageModelling
from recipes.runs.directory import Run
from recipes.tasks import task_of, task_of_run
from tests.recipes.test_training import StopAt

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """The alphabet again and again: after any letter one follows for sure."""
    path = tmp_path_factory.mktemp("text") / "alphabet.txt"
    path.write_text(ALPHABET * 400)
    return path


@pytest.fixture(scope="module")
def recipe(text):
    return TransformerRecipe(
        data=TextData(source=str(text), block_size=16),
        model=TransformerModel(width=16, heads=2, layers=1, feed_forward=32, convolution=2, dropout=0.1),
        optimizer=Optimizer(name="adam", learning_rate=0.02, moving_average=0.5),
        training=TextTraining(epochs=3, steps_per_epoch=32, batch_size=8),
    )


@pytest.fixture(scope="module")
def recurrent(text):
    return RecurrentRecipe(
        data=TextData(source=str(text), block_size=16),
        model=RecurrentModel(cell="gru", units=24, embedding=16, layers=1),
        optimizer=Optimizer(name="adam", learning_rate=0.02, clip_norm=1.0),
        training=TextTraining(epochs=3, steps_per_epoch=32, batch_size=8),
    )


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    return task_of("lm-transformer", recipe).train(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def recurrent_run(recurrent, tmp_path_factory):
    return task_of("lm-gru", recurrent).train(tmp_path_factory.mktemp("run") / "run")


def timeless(run: Run) -> list[dict[str, float]]:
    timed = ("seconds", "tokens_per_second")
    return [{name: value for name, value in row.items() if name not in timed} for row in run.history]


def test_a_run_learns_and_leaves_what_the_contract_names(run):
    metrics = run.metrics
    assert metrics["test_loss"] < 0.1
    assert metrics["test_perplexity"] == pytest.approx(math.exp(metrics["test_loss"]), rel=1e-4)
    assert metrics["test_bits_per_character"] == pytest.approx(metrics["test_loss"] / math.log(2), rel=1e-3)
    assert metrics["train_tokens"] == 3 * 32 * 8 * 16
    assert metrics["validation_and_test_loss"] == pytest.approx(
        (metrics["validation_loss"] + metrics["test_loss"]) / 2, rel=1e-3
    )
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.json",
        "environment.json",
        "history.csv",
        "metrics.json",
        "model.keras",
        "plots",
        "report.html",
        "tensorboard",
        "vocabulary.json",
    ]
    assert list(run.history[0]) == [
        "epoch",
        "loss",
        "validation_loss",
        "perplexity",
        "validation_perplexity",
        "validation_bits_per_character",
        "tokens_per_second",
        "learning_rate",
        "batch_size",
        "sparsity",
        "best_validation_loss",
        "seconds",
    ]
    written = TextGenerator(*load(run)).generate(
        ["hij"], max_new_tokens=60, sampling=Sampling(temperature=0.0), seed=0
    )
    assert written == [(ALPHABET * 4)[7:70]]
    assert ALPHABET in (run.path / "report.html").read_text()


def test_the_validation_loss_is_the_mean_over_the_tokens(run, recipe):
    model, _ = load(run)
    text = load_text(recipe.data)
    losses = []
    for start in range(text.validation.start - 1, text.validation.stop - 1, 16):
        tokens = np.array(text.tokens[start : min(start + 17, text.validation.stop)])
        padded = np.pad(tokens[:-1], (0, 16 - len(tokens) + 1))
        logits = keras.ops.convert_to_numpy(model(padded[np.newaxis]))[0, : len(tokens) - 1]
        shifted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        losses.extend(-shifted[np.arange(len(tokens) - 1), tokens[1:]])
    assert len(losses) == len(text.validation)
    assert run.metrics["validation_loss"] == pytest.approx(np.mean(losses), abs=2e-6)
    kept = run.history[run.metrics["best_epoch"] - 1]
    assert kept["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize(
    ("finished", "settings"),
    [("run", "recipe"), pytest.param("recurrent_run", "recurrent", marks=pytest.mark.slow)],
)
def test_a_run_that_died_resumes_to_the_very_same_result(finished, settings, request, tmp_path):
    whole, recipe = request.getfixturevalue(finished), request.getfixturevalue(settings)
    name = whole.config["recipe"]
    with pytest.raises(MemoryError):
        task_of(name, recipe).train(tmp_path / "died", callbacks=[StopAt(2, MemoryError)])
    resumed = task_of(name, recipe).train(tmp_path / "died", resume=True)
    assert timeless(whole) == timeless(resumed)
    for weight, other in zip(*(load(run)[0].get_weights() for run in (whole, resumed)), strict=True):
        np.testing.assert_array_equal(weight, other)
    assert whole.metrics["test_loss"] == resumed.metrics["test_loss"]


def test_a_recurrent_model_that_carries_its_state_learns(recurrent_run):
    assert recurrent_run.metrics["test_loss"] < 0.3


def test_a_smaller_stride_gives_more_context_and_a_lower_loss(run, recipe):
    apart = task_of_run(run).evaluate()
    assert apart["test_loss"] == pytest.approx(run.metrics["test_loss"], rel=1e-4)
    overlapping = LanguageModelling(
        "lm", with_settings(recipe, {"init_from": str(run.path), "data": {"evaluation_stride": 4}}), run
    ).evaluate()
    assert overlapping["tokens"] == apart["tokens"]
    assert overlapping["test_loss"] < apart["test_loss"]


def test_fine_tuning_starts_from_the_runs_weights_and_vocabulary(run, recipe, tmp_path):
    other = tmp_path / "vowels.txt"
    other.write_text("abcdefghijklmnopqrstuvwxyzaeiou" * 200)
    settings = {
        "data": dataclasses.replace(recipe.data, source=str(other)),
        "training": TextTraining(epochs=1, steps_per_epoch=1, batch_size=8),
        "init_from": str(run.path),
    }
    tuned = task_of("lm", dataclasses.replace(recipe, **settings)).train(tmp_path / "tuned")
    assert tuned.metrics["test_loss"] < 1.5  # one step: a fresh model is at ln 26 = 3.26
    other.write_text(ALPHABET * 200 + "É!" * 9)
    with pytest.raises(UserError, match="The vocabulary lacks '!' 'É'"):
        task_of("lm", dataclasses.replace(recipe, **settings)).train(tmp_path / "again")
    wider = dataclasses.replace(recipe.model, width=32)
    with pytest.raises(UserError, match="needs the network of .* Changed: model.width was 16 and is 32"):
        task_of("lm", dataclasses.replace(recipe, **settings, model=wider)).train(tmp_path / "wider")
    assert not (tmp_path / "wider").exists()


def test_a_vocabulary_that_is_not_the_models_is_refused(run, tmp_path):
    copy = Run(Path(shutil.copytree(run.path, tmp_path / "copy")))
    copy.vocabulary_path.write_text(json.dumps({"kind": "characters", "characters": "abc"}))
    with pytest.raises(UserError, match="has 3 tokens and the model knows 26"):
        load(copy)
    copy.vocabulary_path.unlink()
    with pytest.raises(UserError, match=r"vocabulary.json is missing"):
        load(copy)


def test_only_metrics_of_text_choose_an_epoch():
    with pytest.raises(UserError, match="has no 'validation_accuracy'. Did you mean validation_perplexity?"):
        TransformerRecipe(early_stopping=EarlyStopping(metric="validation_accuracy"))
