"""Exports of models of a user's own images and tables."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from recipes.catalog import CATALOG
from recipes.config import ImageData, TableData
from recipes.tasks import task_of
from serving.export import export
from serving.images import prepare
from serving.training_images import recorded


def with_data(name, data, **training):
    recipe = CATALOG[name].recipe
    training = dataclasses.replace(recipe.training, epochs=1, batch_size=8, **training)
    return dataclasses.replace(recipe, data=data, training=training)


def test_colour_images_are_served_in_their_shape(tmp_path):
    for name, color in (("red", (200, 0, 0)), ("green", (0, 102, 0))):
        (tmp_path / "discs" / name).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (20, 16), color).save(tmp_path / "discs" / name / f"{number}.png")
    recipe = with_data("image-cnn", ImageData(source=str(tmp_path / "discs"), image_size=None, channels=None))
    run = task_of("image-cnn", recipe).train(tmp_path / "run")
    path = export(run, tmp_path / "models", name="discs").path
    signatures = tf.saved_model.load(str(path)).signatures
    image = signatures["serving_default"].structured_input_signature[1]["image"]
    assert image.shape.as_list() == [None, 16, 20, 3]
    trained_on = recorded(path)
    assert trained_on.channels == 3
    file = io.BytesIO()
    Image.new("RGB", (20, 16), (200, 0, 0)).save(file, "PNG")
    (sent,), messages = prepare([file.getvalue()], trained_on, "auto")
    assert messages == []
    pixels = np.full((1, 16, 20, 3), (200, 0, 0), np.float32)
    by_file = signatures["encoded"](image_bytes=tf.constant([sent]))["probabilities"]
    by_pixels = signatures["serving_default"](image=tf.constant(pixels))["probabilities"]
    np.testing.assert_allclose(by_file, by_pixels, atol=1e-6)


@pytest.fixture
def table(tmp_path):
    random = np.random.default_rng(0)
    lines = ["size (cm),colour,weight"]
    for number in range(80):
        size, color = random.uniform(1, 9), random.choice(["red", "blue"])
        lines.append(f"{size:.3f},{color if number else ''},{2 * size + 5 * (color == 'red'):.3f}")
    (tmp_path / "fruit.csv").write_text("\n".join(lines))
    return tmp_path / "fruit.csv"


def signature_of(table, tmp_path, **data):
    recipe = with_data("table-mlp", TableData(source=str(table), **data))
    run = task_of("table-mlp", recipe).train(tmp_path / "run")
    exported = tf.saved_model.load(str(export(run, tmp_path / "models").path))
    return run, exported.signatures["serving_default"], exported


def test_a_row_is_sent_by_the_names_of_its_columns(table, tmp_path):
    run, signature, _keep = signature_of(table, tmp_path)
    rows = {"size__cm_": tf.constant([3.0, 5.0, 5.0]), "colour": tf.constant(["red", "", "green"])}
    predictions = signature(**rows)["prediction"]
    assert predictions.shape == (3,)
    assert float(predictions[1]) == float(predictions[2])  # an unknown colour is as a missing one
    model = tf.keras.models.load_model(run.model_path)
    expected = model.predict(np.float32([[3, 2], [5, 0], [5, 0]]), verbose=0)[:, 0]
    np.testing.assert_allclose(predictions, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"size__cm_": [np.nan], "colour": ["red"]}, "not finite"),
        ({"size__cm_": [1.0, 2.0], "colour": ["red"]}, "same number of rows"),
        ({"size__cm_": [], "colour": []}, "batch is empty"),
    ],
)
def test_rows_that_the_model_has_not_learnt_are_refused(table, tmp_path, rows, message):
    _, signature, _keep = signature_of(table, tmp_path)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signature(
            size__cm_=tf.constant(rows["size__cm_"], tf.float32),
            colour=tf.constant(rows["colour"], tf.string),
        )


def test_a_class_is_returned_by_its_name(table, tmp_path):
    _, signature, _keep = signature_of(table, tmp_path, target="colour")
    answer = signature(size__cm_=tf.constant([3.0]), weight=tf.constant([11.0]))
    assert answer["probabilities"].shape == (1, 2)
    assert answer["class_name"].numpy()[0] == [b"blue", b"red"][int(answer["label"][0])]
