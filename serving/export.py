"""A finished run → a SavedModel that TensorFlow Serving can load, in `models/NAME/VERSION/`.

What is published has been loaded back and compared with the Keras model on real examples; what a
watching server sees is whole, because it is written beside, flushed to the disk and renamed.
"""

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from recipes.config import UserError
from recipes.runs.directory import Run
from recipes.runs.files import write_json
from serving.servables import Case, Servable, check_finite, servable_of

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
        UserError: An unfinished run, a model that answers NaN or infinity, or a version that is there already.
        ValueError: The export answers otherwise than the Keras model; nothing is published.
    """
    if version is not None and version < 1:
        raise UserError(f"--version must be at least 1. Received: {version}")
    metrics = run.metrics
    servable = servable_of(run)
    for signature, case in servable.cases.items():
        for output, values in case.outputs.items():
            check_finite(run, f"{output} of its signature {signature}", values)
    base = models / (name or servable.name)
    if version is not None and (base / str(version)).exists():
        raise UserError(f"{base / str(version)} exists. Choose another --version, or none for the next one")
    base.mkdir(parents=True, exist_ok=True)
    with folder_beside(base) as folder:
        beside = folder / "export"
        signatures = {name: getattr(servable.module, name) for name in servable.cases}
        tf.saved_model.save(servable.module, str(beside), signatures=signatures)
        differences = compare(beside, servable.cases)
        write_extras(beside / "assets.extra", run, metrics, base.name, servable)
        return Export(publish(beside, base, version), differences)


@contextlib.contextmanager
def folder_beside(base: Path) -> Iterator[Path]:
    """Give a folder in a model's folder to write in, and remove it at the end.

    An export holds a lock on its folder, which a kill gives back. Folders that nobody holds are what
    killed exports left, and are removed first.
    """
    with contextlib.ExitStack() as held:
        with _locked(base):  # between its creation and its lock, a folder looks like one that was left
            for leftover in base.glob(".export-*"):
                with (
                    contextlib.suppress(BlockingIOError, FileNotFoundError),
                    _locked(leftover, fcntl.LOCK_NB),
                ):
                    shutil.rmtree(leftover)
            folder = Path(tempfile.mkdtemp(prefix=".export-", dir=base))
            held.enter_context(_locked(folder))
            held.callback(shutil.rmtree, folder)
        yield folder


@contextlib.contextmanager
def _locked(folder: Path, mode: int = 0) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | mode)
        yield
    finally:
        os.close(descriptor)


def compare(path: Path, cases: Mapping[str, Case]) -> dict[str, float]:
    """Load a SavedModel back and return its largest difference from each case's outputs.

    Raises:
        ValueError: A difference above the tolerance.
    """
    loaded = tf.saved_model.load(str(path))
    differences = {}
    for name, case in cases.items():
        answers = loaded.signatures[name](**{key: tf.constant(value) for key, value in case.inputs.items()})
        parts = [_difference(answers[key].numpy(), value) for key, value in case.outputs.items()]
        differences[name] = float(np.max(parts))  # NaN if one of them is; Python's max() goes by their order
        if not differences[name] <= TOLERANCE:
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
    """Write `assets.extra/`: where the export comes from, its limits, and warm-up requests for each signature.

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
            "limits": dict(servable.limits),
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

    It is on the disk before it has its name: a crash of the machine leaves a whole version or none.
    Two exports at once can't take one version: renaming onto a folder that holds something fails.

    Raises:
        UserError: The version asked for was taken meanwhile.
    """
    for path in [*beside.rglob("*"), beside]:
        _flush(path)
    for candidate in itertools.count(highest_version(base) + 1) if version is None else [version]:
        target = base / str(candidate)
        try:
            os.rename(beside, target)
        except OSError:
            if not target.exists():
                raise
        else:
            _flush(base)
            return target
    raise UserError(f"{base / str(version)} exists. Choose another --version, or none for the next one")


def _flush(path: Path) -> None:
    """Write a file or a folder's list of names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
