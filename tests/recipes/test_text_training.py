"""Training language models for real, small: learning, resuming, fine-tuning, scores."""

import dataclasses
import json
import math

import keras
import numpy as np
import pytest

from recipes import language_model
from recipes.completion import Writer, load
from recipes.config import (
    EarlyStopping,
    Optimizer,
    RecurrentModel,
    RecurrentRecipe,
    Sampling,
    StreamedTextData,
    TextData,
    TextTraining,
    TransformerModel,
    TransformerRecipe,
    UserError,
)
from recipes.data.tokens import load_text
from recipes.run import Run
from tests.recipes.test_training import StopAt

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def text(tmp_path):
    """The alphabet again and again: after any letter one follows for sure."""
    path = tmp_path / "alphabet.txt"
    path.write_text(ALPHABET * 400)
    return path


@pytest.fixture
def recipe(text):
    return TransformerRecipe(
        data=TextData(source=str(text), block_size=16),
        model=TransformerModel(width=16, heads=2, layers=1, feed_forward=32, convolution=2, dropout=0.1),
        optimizer=Optimizer(name="muon", learning_rate=0.02, adam_fraction=1.0, moving_average=0.5),
        training=TextTraining(epochs=3, steps_per_epoch=40, batch_size=8),
    )


@pytest.fixture
def recurrent(text):
    return RecurrentRecipe(
        data=StreamedTextData(source=str(text), block_size=16, stateful=True),
        model=RecurrentModel(cell="gru", units=24, embedding=16, layers=1),
        optimizer=Optimizer(name="adam", learning_rate=0.02, clip_norm=1.0),
        training=TextTraining(epochs=3, steps_per_epoch=40, batch_size=8),
    )


def timeless(run: Run) -> list[dict[str, float]]:
    timed = ("seconds", "tokens_per_second")
    return [{name: value for name, value in row.items() if name not in timed} for row in run.history]


def test_a_run_learns_and_leaves_what_the_contract_names(recipe, tmp_path, capsys):
    run = language_model.train("lm-transformer", recipe, tmp_path / "run")
    metrics = run.metrics
    assert metrics["test_loss"] < 0.1
    assert metrics["test_perplexity"] == pytest.approx(math.exp(metrics["test_loss"]), rel=1e-4)
    assert metrics["test_bits_per_character"] == pytest.approx(metrics["test_loss"] / math.log(2), rel=1e-3)
    assert metrics["train_tokens"] == 3 * 40 * 8 * 16
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
        "seconds",
    ]
    written = Writer(*load(run)).complete(
        ["hij"], max_new_tokens=60, sampling=Sampling(temperature=0.0), seed=0
    )
    assert written == [(ALPHABET * 4)[7:70]]
    assert ALPHABET in capsys.readouterr().out
    assert ALPHABET in (run.path / "report.html").read_text()


def test_the_validation_loss_is_the_mean_over_the_tokens(recipe, tmp_path):
    recipe = dataclasses.replace(recipe, training=TextTraining(epochs=1, steps_per_epoch=3, batch_size=8))
    run = language_model.train("lm-transformer", recipe, tmp_path / "run")
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
    assert run.metrics["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert run.history[0]["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("kind", ["recipe", "recurrent"])
def test_a_run_that_died_resumes_to_the_very_same_result(kind, request, tmp_path):
    recipe = request.getfixturevalue(kind)
    whole = language_model.train("lm", recipe, tmp_path / "whole")
    with pytest.raises(MemoryError):
        language_model.train("lm", recipe, tmp_path / "died", callbacks=[StopAt(2, MemoryError)])
    resumed = language_model.train("lm", recipe, tmp_path / "died", resume=True)
    assert timeless(whole) == timeless(resumed)
    for weight, other in zip(*(load(run)[0].get_weights() for run in (whole, resumed)), strict=True):
        np.testing.assert_array_equal(weight, other)
    assert whole.metrics["test_loss"] == resumed.metrics["test_loss"]


def test_a_recurrent_model_that_carries_its_state_learns(recurrent, tmp_path):
    assert language_model.train("lm", recurrent, tmp_path / "run").metrics["test_loss"] < 0.2


def test_a_smaller_stride_gives_more_context_and_a_lower_loss(recipe, tmp_path):
    run = language_model.train("lm-transformer", recipe, tmp_path / "run")
    apart = language_model.evaluate(run, recipe.data)
    assert apart["test_loss"] == pytest.approx(run.metrics["test_loss"], rel=1e-4)
    overlapping = language_model.evaluate(run, dataclasses.replace(recipe.data, evaluation_stride=4))
    assert overlapping["tokens"] == apart["tokens"]
    assert overlapping["test_loss"] < apart["test_loss"]


def test_fine_tuning_starts_from_the_runs_weights_and_vocabulary(recipe, tmp_path):
    run = language_model.train("lm-transformer", recipe, tmp_path / "run")
    other = tmp_path / "backwards.txt"
    other.write_text(ALPHABET[::-1] * 200)
    settings = {
        "data": dataclasses.replace(recipe.data, source=str(other)),
        "training": TextTraining(epochs=1, steps_per_epoch=40, batch_size=8),
        "init_from": str(run.path),
    }
    tuned = language_model.train("lm", dataclasses.replace(recipe, **settings), tmp_path / "tuned")
    assert tuned.metrics["test_loss"] < 0.5
    other.write_text(ALPHABET * 200 + "É!" * 9)
    with pytest.raises(UserError, match="The vocabulary lacks '!' 'É'"):
        language_model.train("lm", dataclasses.replace(recipe, **settings), tmp_path / "again")
    wider = dataclasses.replace(recipe.model, width=32)
    with pytest.raises(UserError, match="needs the network of .* Changed: model.width was 16 and is 32"):
        language_model.train("lm", dataclasses.replace(recipe, **settings, model=wider), tmp_path / "wider")
    assert not (tmp_path / "wider").exists()


def test_a_vocabulary_that_is_not_the_models_is_refused(recipe, tmp_path):
    run = language_model.train(
        "lm",
        dataclasses.replace(recipe, training=TextTraining(epochs=1, steps_per_epoch=1)),
        tmp_path / "run",
    )
    run.vocabulary_path.write_text(json.dumps({"kind": "characters", "characters": "abc"}))
    with pytest.raises(UserError, match="has 3 tokens and the model knows 26"):
        load(run)
    run.vocabulary_path.unlink()
    with pytest.raises(UserError, match=r"vocabulary.json is missing"):
        load(run)


def test_only_metrics_of_text_choose_an_epoch():
    with pytest.raises(
        UserError, match="has no 'validation_accuracy'. Possible: validation_bits_per_character"
    ):
        TransformerRecipe(early_stopping=EarlyStopping(metric="validation_accuracy"))
