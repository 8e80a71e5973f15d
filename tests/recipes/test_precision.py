"""Every recipe of the catalog trains, resumes, samples and is exported in each precision."""

import itertools
from typing import get_args, get_type_hints

import keras
import numpy as np
import pytest

from recipes.catalog import CATALOG
from recipes.config import ImageRecipe, Recipe, Sampling, TextRecipe, Training, with_settings
from recipes.generation.text_generator import TextGenerator, load
from recipes.tasks import task_of, task_of_run
from serving.export import export
from tests.recipes.test_training import StopAt

PRECISIONS = get_args(get_type_hints(Training)["precision"])
FAST = {
    ("mnist-cnn", "mixed_float16"),
    ("lm-transformer", "mixed_bfloat16"),
    ("diabetes-mlp", "mixed_bfloat16"),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def shrunken(name: str, precision: str, source: str) -> Recipe:
    """Return a recipe of the catalog that trains in seconds: all of its parts, small."""
    recipe = CATALOG[name].recipe
    tree = {"training": {"epochs": 2, "precision": precision}, "schedule": {"warmup": 0.2}}
    if isinstance(recipe, ImageRecipe):
        filters = [4] * len(recipe.model.convolutions)
        tree |= {
            "data": {"source": "digits"},
            "model": {"convolutions": filters, "dense": [8] * len(recipe.model.dense)},
            "pretraining": {"epochs": min(recipe.pretraining.epochs, 1)},
        }
        tree["training"]["batch_size"] = 50
    elif isinstance(recipe, TextRecipe):
        tree |= {"data": {"source": source, "block_size": 8}}
        sizes = {"width": 24, "feed_forward": 16, "units": 12, "embedding": 8, "layers": 1}
        tree["model"] = {key: size for key, size in sizes.items() if hasattr(recipe.model, key)}
        tree["training"] |= {"steps_per_epoch": 4, "batch_size": 4}
    elif name == "seq2seq-reverse":
        tree |= {"data": {"longest": 4, "held_out": 8}, "model": {"width": 8, "feed_forward": 8, "layers": 1}}
        tree["training"] |= {"steps_per_epoch": 4, "batch_size": 4}
    return with_settings(recipe, tree)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(*pair, marks=[] if pair in FAST else pytest.mark.slow)
        for pair in itertools.product(CATALOG, PRECISIONS)
    ],
)
def test_a_recipe_trains_resumes_samples_and_is_exported(name, precision, tmp_path):
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    recipe = shrunken(name, precision, str(tmp_path / "text.txt"))
    task = task_of(name, recipe)
    run = task.train(tmp_path / "whole")
    with pytest.raises(MemoryError):
        task.train(tmp_path / "died", callbacks=[StopAt(2, MemoryError)], final=False)
    resumed = task.train(tmp_path / "died", resume=True, final=False)
    model = keras.models.load_model(run.model_path)
    weights = [keras.models.load_model(each.model_path).get_weights() for each in (run, resumed)]
    for whole, again in zip(*weights, strict=True):
        np.testing.assert_array_equal(whole, again)
        assert whole.dtype == "float32"
        assert np.isfinite(whole).all()
    scores = task_of_run(run).evaluate()
    for figure, value in scores.items():
        if figure.startswith("test_") and isinstance(value, float):  # the saved model is what was scored
            assert value == pytest.approx(run.metrics[figure], rel=1e-4, abs=1e-5), figure
    if isinstance(recipe, TextRecipe):
        assert model(np.zeros((1, 8), np.int32)).dtype == "float32"
        generator = TextGenerator(*load(run))
        text = generator.generate(["the"], max_new_tokens=20, sampling=Sampling(temperature=0.8), seed=0)[0]
        assert len(text) == 23
    if isinstance(recipe, ImageRecipe):
        probabilities = model.predict(np.zeros((1, 28, 28, 1)), verbose=0)
        assert probabilities.dtype == "float32"
        assert probabilities.sum() == pytest.approx(1, abs=1e-6)
    if isinstance(recipe, ImageRecipe | TextRecipe):
        differences = export(run, tmp_path / "models").differences
        assert max(differences.values()) <= 1e-5
