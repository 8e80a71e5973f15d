"""A finished run → the signatures of its export, with cases on which the export must equal the Keras model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recipes.config import ImageData, Sampling, UserError, from_dict
from recipes.data.examples import Examples
from recipes.data.images import OFFLINE_DATASET, image_shape, load_images
from recipes.data.table import Schema
from recipes.generation import decoding
from recipes.generation.text_generator import TextGenerator, load
from recipes.models import saved
from recipes.runs.directory import Run
from recipes.runs.recipe_lookup import recorded_recipe
from recipes.tasks import task_class, task_of_run
from serving.signatures import image, keras_model, table, text
from serving.tensors import Arrays
from serving.training_images import TrainingImages, describe_training

EXAMPLES = 256
PROMPT_SIZES = (1, 2, 7, 30, 100, 300)
"""Lengths of the prompts of the cases, in characters: some are longer than a window."""
TOKENS_COMPARED = 40


@dataclass(frozen=True)
class Case:
    """Real inputs of a signature, and the Keras model's outputs for them."""

    inputs: Arrays
    outputs: Arrays


@dataclass(frozen=True)
class Exportable:
    """A model that can be exported.

    Attributes:
        module: Has a function for each signature.
        cases: A case for each signature, by its name.
        name: Default name of the model.
        limits: Limits of a request, by name.
        record: More entries of `recipe.json`.
    """

    module: tf.Module
    cases: Mapping[str, Case]
    name: str
    limits: Mapping[str, int]
    record: Mapping[str, Any] = field(default_factory=dict)


def exportable(run: Run) -> Exportable:
    """Return the model of a finished run with its signatures.

    Raises:
        UserError: The models of this recipe can't be exported, or a language model has logits that are not
            finite.
    """
    if "tokenizer" in run.metrics:
        return _language_model(run)
    if "classes" in run.metrics:
        return _image_classifier(run)
    if "columns" in run.metrics:
        return _table_model(run)
    return _keras_model(run)


def check_finite(run: Run, what: str, values: npt.NDArray[Any]) -> None:
    """Refuse a model with outputs that are NaN or infinite.

    Args:
        run: The model's run.
        what: Name of the values in the error.
        values: Outputs of the model.

    Raises:
        UserError: A value is not finite.
    """
    if values.dtype != np.object_ and not np.isfinite(values).all():
        raise UserError(f"{run.path} can't be exported: {what} has values that are not finite")


def _image_classifier(run: Run) -> Exportable:
    """Return an image classifier, with examples of its test part."""
    model = saved.load_model(run.model_path)
    examples, training_images = _examples(run)
    images = examples.images.astype(np.float32)
    probabilities = model.predict(images, verbose=0)
    outputs = {"probabilities": probabilities, "label": probabilities.argmax(axis=-1)}
    encoded = [tf.io.encode_png(image).numpy() for image in examples.images.astype(np.uint8)]
    cases = {"serving_default": Case({"image": images}, outputs)}
    if np.array_equal(examples.images, examples.images.astype(np.uint8)):  # PNG files have integers only
        cases["encoded"] = Case({"image_bytes": np.array(encoded, np.object_)}, outputs)
    record = {"training_images": asdict(training_images)} if training_images else {}
    return Exportable(image.image_classifier(model), cases, "mnist", image.LIMITS, record)


def _table_model(run: Run) -> Exportable:
    """Return a model of a CSV file's rows, with its validation rows as they are in the file."""
    task = task_of_run(run)
    task.load()
    model, rows, schema = task.load_model(), task.examples(), Schema.from_record(run.metrics)
    predictions = model.predict(rows, verbose=0)
    inputs = {
        name: _strings(["", *column.categories])[values.astype(int)] if column.categories else values
        for name, column, values in zip(
            table.input_names(schema.columns), schema.columns, rows.T, strict=True
        )
    }
    outputs: Arrays = {"prediction": predictions[:, 0]}
    if schema.target.categories:
        labels = predictions.argmax(axis=-1)
        names = _strings(list(schema.target.categories))[labels]
        outputs = {"probabilities": predictions, "label": labels, "class_name": names}
    record = {"inputs": dict(zip(inputs, (column.name for column in schema.columns), strict=True))}
    cases = {"serving_default": Case(inputs, outputs)}
    return Exportable(table.table_model(model, schema), cases, task.data.name, table.LIMITS, record)


def _keras_model(run: Run) -> Exportable:
    """Return any other model with tensors as inputs and outputs, with examples of its validation part.

    Raises:
        UserError: A subclass of keras.Model, which has no list of inputs, or a task whose models can't be exported.
    """
    if not task_class(recorded_recipe(run.config)).served:
        raise UserError(f"{run.path} is a run of {run.config['recipe']}, whose models can't be exported")
    task = task_of_run(run)
    task.load()
    model = task.load_model()
    if not getattr(model, "inputs", None):
        raise UserError(
            f"{run.path}: functional and Sequential models can be exported. Received: {type(model).__name__}"
        )
    examples = task.examples()
    inputs = dict(zip(keras_model.input_names(model), tf.nest.flatten(examples), strict=True))
    outputs = tf.nest.flatten(model.predict(examples, verbose=0))
    named = dict(zip(keras_model.output_names(model), outputs, strict=True))
    for name, values in named.items():
        check_finite(run, name, values)
    case = Case(inputs, named)
    return Exportable(
        keras_model.keras_model(model), {"serving_default": case}, task.data.name, keras_model.LIMITS
    )


def _examples(run: Run) -> tuple[Examples, TrainingImages | None]:
    """Return test examples of the run's data, and a description of its training images.

    If the run's data can't be read any more, the examples are the offline digits in the shape of its images.
    """
    source, shape = run.metrics["data_source"], image_shape(run.metrics)
    data = from_dict(ImageData, {**run.config["data"], "source": source})
    training_images = None
    try:
        dataset = load_images(data, shape=shape)
        examples, training_images = dataset.read_test(), describe_training(dataset.source.train.images)
    except UserError as error:
        print(f"{error}\nThe export is checked on the offline digits instead.")
        examples = load_images(ImageData(source=OFFLINE_DATASET), shape=shape).read_test()
    return examples[np.arange(min(EXAMPLES, len(examples)))], training_images


def _language_model(run: Run) -> Exportable:
    """Return a language model, with prompts that it generated."""
    model, tokenizer = load(run)
    generator = TextGenerator(model, tokenizer)
    first = next(token.decode() for token in tokenizer.tokens if _is_text(token))
    ids = tf.constant([tokenizer.encode(first)])
    logits = decoding.read_prompts(model, ids, tf.shape(ids)[1:]).logits  # (1, vocabulary_size)
    check_finite(run, "its output", tf.cast(logits, tf.float32).numpy())  # no token can be sampled from NaN
    generated = generator.generate([first], max_new_tokens=max(PROMPT_SIZES), sampling=Sampling(), seed=0)[0]
    prompts = [generated[:size] for size in PROMPT_SIZES]
    rows = len(prompts)
    default = generator.generate(
        prompts, max_new_tokens=text.DEFAULT_NEW_TOKENS, sampling=text.DEFAULT_SAMPLING, seed=0
    )
    greedy, sampled = Sampling(temperature=0.0), Sampling(temperature=0.8, top_k=20, top_p=0.9)
    settings = [greedy if number % 2 == 0 else sampled for number in range(rows)]
    texts = [
        generator.generate([prompt], max_new_tokens=TOKENS_COMPARED, sampling=sampling, seed=1)[0]
        for prompt, sampling in zip(prompts, settings, strict=True)
    ]
    arguments: Arrays = {
        "max_new_tokens": np.full(rows, TOKENS_COMPARED, np.int32),
        "temperature": np.array([each.temperature for each in settings], np.float32),
        "top_k": np.array([each.top_k for each in settings], np.int32),
        "top_p": np.array([each.top_p for each in settings], np.float32),
        "seed": np.ones(rows, np.int64),
    }
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    scores = {
        "log_likelihood": np.array([_log_likelihood(model, ids) for ids in encoded], np.float32),
        "token_count": np.array([len(ids) - 1 for ids in encoded], np.int32),
    }
    cases = {
        "serving_default": Case({"prompt": _strings(prompts)}, {"text": _strings(default)}),
        "generate": Case({"prompt": _strings(prompts), **arguments}, {"text": _strings(texts)}),
        "score": Case({"text": _strings(prompts)}, scores),
    }
    return Exportable(text.language_model(model, tokenizer), cases, "lm", text.limits_of(model))


def _is_text(token: bytes) -> bool:
    return "\ufffd" not in token.decode(errors="replace")


def _strings(texts: list[str]) -> npt.NDArray[Any]:
    return np.array([text.encode() for text in texts], np.object_)


def _log_likelihood(model: Any, ids: npt.NDArray[np.int32]) -> float:
    """Return the log-likelihood of a text's tokens except the first, each predicted from its own window."""
    if len(ids) == 1:
        return 0.0
    if model.window is None:
        logits = model(ids[np.newaxis, :-1])[0]
    else:
        ends = np.arange(1, len(ids))
        starts = decoding.window_starts(tf.constant(ends, tf.int32), model.window).numpy()
        places = np.minimum(starts[:, np.newaxis] + np.arange(model.window), len(ids) - 1)
        logits = tf.gather(model(ids[places]), ends - starts - 1, batch_dims=1)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(ids[1:], logits)
    return -float(tf.reduce_sum(losses))
