"""Pre-train a classifier's hidden layers as a denoising autoencoder, on images without labels.

It is a training like any other, with a run directory of its own inside the classifier's: it has a
history, and a kill costs at most an epoch of it.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recipes.config import EarlyStopping, ImageRecipe, Optimizer, Pretraining, Recipe, Schedule
from recipes.data.augmentation import augment
from recipes.data.batch_sizes import batch_sizes
from recipes.data.batches import EVALUATION_BATCH_SIZE, prefetch, shuffled_batches
from recipes.data.streams import draw_keys, stream
from recipes.models import Tensor
from recipes.models.image import build_autoencoder
from recipes.models.saved import load_model
from recipes.runs.directory import Run
from recipes.runs.opening import open_run
from recipes.training.compile import building, compile_model
from recipes.training.fit import fit, save_model

Images = npt.NDArray[Any]


def pretrain(
    name: str,
    recipe: ImageRecipe,
    model: keras.Model,
    images: Images,
    validation: Images,
    path: Path,
    about: Mapping[str, Any],
) -> Run:
    """Train a classifier's hidden layers to restore corrupted images, or load them from that run if it is finished.

    Args:
        name: The recipe's name.
        recipe: The classifier's settings.
        model: The classifier; its hidden layers change, its last layer does not.
        images: (n, height, width, channels), 0 to 255.
        validation: Images that choose the epoch.
        path: The run directory of the pre-training.
        about: What the run records about the images, with a fingerprint.

    Returns:
        The finished run.
    """
    settings = recipe.pretraining
    with building(recipe.training, model.distribute_strategy):
        autoencoder = build_autoencoder(model)
    run = Run(path)
    if run.finished:
        autoencoder.set_weights(load_model(run.model_path).get_weights())
        return run
    own = _recipe(recipe)
    sizes = batch_sizes(own, len(images))
    seed = own.training.seed
    batches = shuffled_batches(
        images,
        np.zeros(len(images)),
        sizes,
        seed,
        lambda batch, _, key, epoch: corrupt(batch, settings, key),
        use="pretraining",
    )
    compile_model(autoencoder, own, _compile, sizes=sizes, xla_is_faster=False)
    resume = (path / "config.json").exists()
    with open_run(path, name, own, about, resume=resume, steps=sizes.total_steps) as run:
        print(f"{name}: pre-training on {len(images):,} images without labels", flush=True)
        outcome = fit(autoencoder, own, run, batches, _evaluation(validation, settings))
        save_model(autoencoder, run)
        best = min(row["validation_loss"] for row in run.history)
        run.finish({**dataclasses.asdict(outcome), "recipe": name, "validation_loss": best})
    return run


def _compile(autoencoder: keras.Model, **options: Any) -> None:
    autoencoder.compile(loss=keras.losses.BinaryCrossentropy(), **options)


def corrupt(images: Tensor, settings: Pretraining, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Move images and set a fraction of their pixels to 0 (Vincent et al. 2010, "Stacked denoising autoencoders").

    Args:
        images: (batch, height, width, channels), 0 to 255.
        settings: How far to move them, and the fraction of the pixels.
        seed: (2,) int32.

    Returns:
        The corrupted images, and the originals: (batch, height * width * channels) in [0, 1].
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    moved = augment(images, settings.moves, seeds[0])
    keep = tf.random.stateless_uniform(tf.shape(images), seeds[1]) >= settings.noise
    return tf.where(keep, moved, 0.0), tf.reshape(images, (tf.shape(images)[0], -1)) / 255


def _recipe(recipe: ImageRecipe) -> Recipe:
    """Return the settings of the pre-training: the classifier's data and model, its own training."""
    settings = recipe.pretraining
    training = dataclasses.replace(recipe.training, epochs=settings.epochs, batch_size=settings.batch_size)
    return ImageRecipe(
        data=recipe.data,
        model=recipe.model,
        optimizer=Optimizer(learning_rate=settings.learning_rate),
        schedule=Schedule(name="cosine"),
        early_stopping=EarlyStopping(),
        training=training,
        pretraining=settings,
    )


def _evaluation(images: Images, settings: Pretraining) -> tf.data.Dataset:
    """Return all images in order, each always with the same noise."""
    batches = tf.data.Dataset.from_tensor_slices(images).batch(EVALUATION_BATCH_SIZE)
    keys = tf.data.Dataset.from_tensor_slices(draw_keys(stream(0, "validation noise"), len(batches)))
    corrupted = tf.data.Dataset.zip(batches, keys).map(
        lambda batch, key: corrupt(tf.cast(batch, tf.float32), settings, key)
    )
    return prefetch(corrupted, 2)
