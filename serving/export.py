"""A finished run → a SavedModel that TensorFlow Serving can load, in `models/NAME/VERSION/`.

What is published has been loaded back and compared with the Keras model on real examples; what a
watching server sees is whole, because it is written beside and renamed.
"""

import itertools
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from recipes.config import UserError
from recipes.files import write_json
from recipes.run import Run
from serving.servables import Case, Servable, servable_of

WARMUP_EXAMPLES = 8
TOLERANCE = 1e-5
"""Largest difference between the export's numbers and the Keras model's, as a part of those above 1."""


@dataclass(frozen=True)
class Export:
    """A published export: its path, and the largest difference of its answers by signature."""

    path: Path
    differences: Mapping[str, float]


def export(run: Run, models: Path, name: str | None = None, version: int | None = None) -> Export:
    """Publish a finished run.

    Args:
        run: The run.
        models: Folder of all models.
        name: Name of the model; None for its kind's.
        version: Version number, at least 1; None for one more than the highest.

    Raises:
        UserError: An unfinished run, or a version that is there already.
        ValueError: The export answers otherwise than the Keras model; nothing is published.
    """
    if version is not None and version < 1:
        raise UserError(f"--version must be at least 1. Received: {version}")
    metrics = run.metrics
    servable = servable_of(run)
    base = models / (name or servable.name)
    if version is not None and (base / str(version)).exists():
        raise UserError(f"{base / str(version)} exists. Choose another --version, or none for the next one")
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=base) as folder:
        beside = Path(folder) / "export"
        signatures = {name: getattr(servable.module, name) for name in servable.cases}
        tf.saved_model.save(servable.module, str(beside), signatures=signatures)
        differences = compare(beside, servable.cases)
        write_extras(beside / "assets.extra", run, metrics, base.name, servable)
        return Export(publish(beside, base, version), differences)


def compare(path: Path, cases: Mapping[str, Case]) -> dict[str, float]:
    """Load a SavedModel back and return its largest difference from each case's outputs.

    Raises:
        ValueError: A difference above the tolerance.
    """
    loaded = tf.saved_model.load(str(path))
    differences = {}
    for name, case in cases.items():
        answers = loaded.signatures[name](**{key: tf.constant(value) for key, value in case.inputs.items()})
        differences[name] = max(
            _difference(answers[key].numpy(), value) for key, value in case.outputs.items()
        )
        if differences[name] > TOLERANCE:
            raise ValueError(
                f"The export is not published: signature {name} differs from the Keras model by "
                f"{differences[name]:.3g}, more than {TOLERANCE:g}"
            )
    return differences


def _difference(answer: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Return the largest difference, as a part of values above 1; of texts the part that differs."""
    if expected.dtype == np.object_:
        return float((answer != expected).mean())
    expected = expected.astype(np.float64)
    return float((np.abs(answer - expected) / np.maximum(np.abs(expected), 1)).max())


def write_extras(
    folder: Path, run: Run, metrics: Mapping[str, Any], model_name: str, servable: Servable
) -> None:
    """Write `assets.extra/`: where the export comes from, and warm-up requests for each signature.

    TF Serving replays the requests before it serves a version, so that no caller waits for the
    first run of its graph (https://www.tensorflow.org/tfx/serving/saved_model_warmup).
    """
    folder.mkdir()
    write_json(
        folder / "recipe.json",
        {
            "run": str(run.path.resolve()),
            "metrics": dict(metrics),
            "config": run.config,
            **servable.record,
        },
    )
    with tf.io.TFRecordWriter(str(folder / "tf_serving_warmup_requests")) as writer:
        for signature, case in servable.cases.items():
            for size in (1, WARMUP_EXAMPLES):
                request = predict_pb2.PredictRequest()
                request.model_spec.name = model_name
                request.model_spec.signature_name = signature
                for name, values in case.inputs.items():
                    request.inputs[name].CopyFrom(tf.make_tensor_proto(values[:size]))
                log = prediction_log_pb2.PredictionLog(
                    predict_log=prediction_log_pb2.PredictLog(request=request)
                )
                writer.write(log.SerializeToString())


def publish(beside: Path, base: Path, version: int | None) -> Path:
    """Rename a whole export to its version, so that a watching server never sees half of it.

    Two exports at once can't take one version: renaming onto a folder that holds something fails.

    Raises:
        UserError: The version asked for was taken meanwhile.
    """
    for candidate in itertools.count(highest_version(base) + 1) if version is None else [version]:
        target = base / str(candidate)
        try:
            os.rename(beside, target)
        except OSError:
            if not target.exists():
                raise
        else:
            return target
    raise UserError(f"{base / str(version)} exists. Choose another --version, or none for the next one")


def highest_version(base: Path) -> int:
    """Return the highest version number in a model's folder, 0 where there is none."""
    return max((int(path.name) for path in base.iterdir() if path.name.isdecimal()), default=0)


def describe(result: Export) -> str:
    """Say what was published and how it was checked."""
    size = sum(path.stat().st_size for path in result.path.rglob("*") if path.is_file())
    lines = [f"{result.path}: {size:,} bytes"]
    lines += [
        f"signature {name}: largest difference from the Keras model {difference:.2g}"
        for name, difference in result.differences.items()
    ]
    recipe = json.loads((result.path / "assets.extra" / "recipe.json").read_text())
    part = "test" if "test_loss" in recipe["metrics"] else "validation"  # a trial has no test figures
    lines.append(f"from {recipe['run']}, {part} loss {recipe['metrics'][f'{part}_loss']:.4f}")
    return "\n".join(lines)
