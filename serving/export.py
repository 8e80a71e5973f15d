"""A finished run → a SavedModel for TensorFlow Serving, in `models/NAME/VERSION/`.

Before it is published, an export is loaded and compared with the Keras model on real examples. A server that
watches the folder never sees a part of it: it is written to another folder, flushed to the disk and renamed.
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

from recipes.config import UserError
from recipes.runs.directory import Run
from recipes.runs.files import write_json
from serving.exportable import Case, Exportable, check_finite, exportable
from serving.protocol import PredictionLog
from serving.tensors import fill_proto
from serving.versions import highest_version, require_version

WARMUP_EXAMPLES = 8
TOLERANCE = 1e-5
"""Largest difference between outputs of the export and of the Keras model; relative for values above 1."""


@dataclass(frozen=True)
class Export:
    """A published export: its path, and the largest difference from the Keras model by signature."""

    path: Path
    differences: Mapping[str, float]


def export(run: Run, models: Path, name: str | None = None, version: int | None = None) -> Export:
    """Publish a finished run.

    Args:
        run: The run.
        models: Folder of all models.
        name: Name of the model; None for the default of its kind.
        version: Version number, at least 1; None for one more than the highest.

    Raises:
        UserError: An unfinished run, outputs that are NaN or infinite, or a version that exists.
        ValueError: The export's outputs differ from the Keras model's; nothing is published.
    """
    require_version(version)
    metrics = run.metrics
    model = exportable(run)
    for signature, case in model.cases.items():
        for output, values in case.outputs.items():
            check_finite(run, f"{output} of its signature {signature}", values)
    base = models / (name or model.name)
    if version is not None and (base / str(version)).exists():
        raise UserError(f"{base / str(version)} exists. Choose another --version, or none for the next one")
    base.mkdir(parents=True, exist_ok=True)
    with temporary_folder(base) as folder:
        path = folder / "export"
        signatures = {name: getattr(model.module, name) for name in model.cases}
        tf.saved_model.save(model.module, str(path), signatures=signatures)
        differences = compare(path, model.cases)
        write_extras(path / "assets.extra", run, metrics, base.name, model)
        return Export(publish(path, base, version), differences)


@contextlib.contextmanager
def temporary_folder(base: Path) -> Iterator[Path]:
    """Give a temporary folder in a model's folder, and remove it at the end.

    An export locks its folder; the lock ends with its process. So folders without a lock are those of killed
    exports, and are removed first.
    """
    with contextlib.ExitStack() as held:
        with _locked(base):  # before it is locked, a new folder looks like that of a killed export
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
    """Load a SavedModel and return the largest difference from the outputs of each case.

    Raises:
        ValueError: A difference above the tolerance.
    """
    loaded = tf.saved_model.load(str(path))
    differences = {}
    for name, case in cases.items():
        outputs = loaded.signatures[name](**{key: tf.constant(value) for key, value in case.inputs.items()})
        parts = [_difference(outputs[key].numpy(), value) for key, value in case.outputs.items()]
        differences[name] = float(np.max(parts))  # NaN if one of them is, unlike Python's max()
        if not differences[name] <= TOLERANCE:
            raise ValueError(
                f"The export is not published: signature {name} differs from the Keras model by "
                f"{differences[name]:.3g}, more than {TOLERANCE:g}"
            )
    return differences


def _difference(output: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Return the largest difference, relative for values above 1; of strings the part that differs."""
    if expected.dtype == np.object_:
        return float((output != expected).mean())
    expected = expected.astype(np.float64)
    return float((np.abs(output - expected) / np.maximum(np.abs(expected), 1)).max())


def write_extras(
    folder: Path, run: Run, metrics: Mapping[str, Any], model_name: str, model: Exportable
) -> None:
    """Write `assets.extra/`: the export's run, its limits, and warm-up requests for each signature.

    TF Serving replays the requests before it serves a version, so that no client waits for the
    first run of its graph (https://www.tensorflow.org/tfx/serving/saved_model_warmup).
    """
    folder.mkdir()
    write_json(
        folder / "recipe.json",
        {
            "run": str(run.path.resolve()),
            "metrics": dict(metrics),
            "config": run.config,
            "limits": dict(model.limits),
            **model.record,
        },
    )
    with tf.io.TFRecordWriter(str(folder / "tf_serving_warmup_requests")) as writer:
        for signature, case in model.cases.items():
            for size in (1, WARMUP_EXAMPLES):
                log = PredictionLog()
                request = log.predict_log.request
                request.model_spec.name = model_name
                request.model_spec.signature_name = signature
                for name, values in case.inputs.items():
                    fill_proto(request.inputs[name], values[:size])
                writer.write(log.SerializeToString())


def publish(export: Path, base: Path, version: int | None) -> Path:
    """Rename a complete export to its version, so that a server that watches the folder never sees a part of it.

    It is flushed to the disk first: a crash of the machine leaves a complete version or none. Two exports at
    once can't take the same version, because renaming to a folder that is not empty fails.

    Raises:
        UserError: The version exists.
    """
    for path in [*export.rglob("*"), export]:
        _flush(path)
    for candidate in itertools.count(highest_version(base) + 1) if version is None else [version]:
        target = base / str(candidate)
        try:
            os.rename(export, target)
        except OSError:
            if not target.exists():
                raise
        else:
            _flush(base)
            return target
    raise UserError(f"{base / str(version)} exists. Choose another --version, or none for the next one")


def _flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe(result: Export) -> str:
    """Return lines about a published export for the terminal."""
    size = sum(path.stat().st_size for path in result.path.rglob("*") if path.is_file())
    lines = [f"{result.path}: {size:,} bytes"]
    lines += [
        f"signature {name}: largest difference from the Keras model {difference:.2g}"
        for name, difference in result.differences.items()
    ]
    recipe = json.loads((result.path / "assets.extra" / "recipe.json").read_text())
    part = "test" if "test_loss" in recipe["metrics"] else "validation"  # a trial has no test metrics
    lines.append(f"from {recipe['run']}, {part} loss {recipe['metrics'][f'{part}_loss']:.4f}")
    return "\n".join(lines)
