"""What two models cost, measured side by side: files, multiply-adds, latency, throughput."""

import functools
import gzip
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from recipes.compression.cost import multiply_adds
from recipes.models.bare import bare_copy
from recipes.models.parameters import count_nonzero

REPEATS = 15
SECONDS = 4.0
"""Repeats end after so long: a large model needs few."""

Figures = dict[str, Any]


def measure(before: keras.Model, after: keras.Model, examples: Any) -> dict[str, Figures]:
    """Measure two models, in turns, so that a slow moment of the machine meets both.

    Args:
        before: A model.
        after: What became of it; both take the examples.
        examples: A batch, an array or a tuple of arrays.

    Returns:
        For `before` and `after`: parameters, nonzero_parameters, model_bytes and gzipped_bytes (of
        the .keras file without an optimizer), multiply_adds (of an example), latency_ms (of one
        example) and examples_per_second (of the whole batch).
    """
    one = tf.nest.map_structure(lambda values: tf.constant(values[:1]), examples)
    batch = tf.nest.map_structure(tf.constant, examples)
    size = len(tf.nest.flatten(batch)[0])
    runs = [_compiled(model) for model in (before, after)]
    latencies = median_seconds([functools.partial(run, one) for run in runs])
    batches = median_seconds([functools.partial(run, batch) for run in runs])
    return {
        name: {
            **_static(model),
            "latency_ms": round(1000 * latency, 3),
            "examples_per_second": round(size / seconds),
        }
        for name, model, latency, seconds in zip(
            ("before", "after"), (before, after), latencies, batches, strict=True
        )
    }


def _static(model: keras.Model) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        bare_copy(model).save(path)
        content = path.read_bytes()
    return {
        "parameters": model.count_params(),
        "nonzero_parameters": count_nonzero(model),
        "model_bytes": len(content),
        "gzipped_bytes": len(gzip.compress(content)),
        "multiply_adds": multiply_adds(model),
    }


def _compiled(model: keras.Model) -> Callable[[Any], Any]:
    return tf.function(lambda inputs: model(inputs, training=False))


def median_seconds(calls: list[Callable[[], Any]]) -> list[float]:
    """Return the median time of each call, all of them repeated in turns."""
    for call in calls:
        call()
    seconds: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + SECONDS
    for repeat in range(REPEATS):
        for call, taken in zip(calls, seconds, strict=True):
            started = time.perf_counter()
            call()
            taken.append(time.perf_counter() - started)
        if repeat >= 2 and time.perf_counter() > end:
            break
    return [statistics.median(taken) for taken in seconds]
