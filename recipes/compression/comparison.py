"""Compare the cost of two models, measured side by side: files, multiply-adds, latency, throughput."""

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

from recipes.compression.cost import multiply_adds, sparsity_by_layer
from recipes.models.parameters import count_nonzero
from recipes.models.saved import copy_without_optimizer
from recipes.report.page import Table

REPEATS = 15
SECONDS = 4.0
"""Repeats end after so long: a large model needs few."""

NAMES = {
    "parameters": "parameters",
    "nonzero_parameters": "parameters that are not 0",
    "model_bytes": "size of model.keras, bytes",
    "gzipped_bytes": "the same in gzip, bytes",
    "multiply_adds": "multiply-adds per example",
    "latency_ms": "latency of one example, ms",
    "examples_per_second": "throughput, examples/s",
}

Figures = dict[str, Any]


def compare_models(
    before: keras.Model, after: keras.Model, examples: Any
) -> tuple[dict[str, Any], list[Table]]:
    """Measure two models, and return the result for metrics.json and as tables for the report."""
    measured = measure(before, after, examples)
    layers = sparsity_by_layer(after)
    rows = [
        {
            "figure": NAMES[name],
            "before": f"{old:,}",
            "after": f"{new:,}",
            "times better": f"{gain(name, old, new):.2f}" if old and new else "",
        }
        for (name, old), new in zip(measured["before"].items(), measured["after"].values(), strict=True)
    ]
    size = len(tf.nest.flatten(examples)[0])
    caption = (
        "Before and after, measured in turns on this machine. Above 1 the new model is smaller or faster; "
        f"throughput in batches of {size}"
    )
    tables = [Table(caption, rows), Table("Weights by layer", layers)]
    return {"compression": measured, "sparsity_by_layer": layers}, tables


def gain(name: str, old: float, new: float) -> float:
    """Return how many times smaller or faster the new model is; a throughput is better when it is higher."""
    return new / old if name == "examples_per_second" else old / new


def measure(before: keras.Model, after: keras.Model, examples: Any) -> dict[str, Figures]:
    """Measure two models in turns, so that noise of the machine affects both.

    Args:
        before: A model.
        after: The pruned or quantised model; both take the examples.
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
        copy_without_optimizer(model).save(path)
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
