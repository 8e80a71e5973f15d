"""A loaded version of a model: its signatures and the functions that run them."""

import gc
import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.eager.cancellation import CancellationManager

from serving.protocol import PredictionLog, SavedModel
from serving.server.function import Function
from serving.server.inputs import order_inputs, read_protos
from serving.server.text_steps import TextSteps
from serving.tensors import Array, Signature

DEFAULT_SIGNATURE = "serving_default"
GENERATE = "generate"
RECIPE_FILE = Path("assets.extra") / "recipe.json"
WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_WARMUP_RECORDS = 1000
FATAL_OPERATIONS = re.compile("Conv|Pool|BatchNorm|LRN|Dilation")
"""Operations that end the process for a tensor of a rank they do not expect: `Check failed: index < num_total_dims`."""
MAX_RUNS = os.cpu_count() or 1
"""Runs of a model at the same time. TensorFlow has more threads (`app.GRAPH_THREADS`): a graph that
generates text keeps one of them until its last token, and without a free thread no other graph starts."""


class Servable:
    """A loaded SavedModel with its own threads, so that models do not wait for each other.

    Args:
        name: Name of the model.
        version: Version number.
        path: The version's folder.
        tags: Tags of the graph to load.

    Attributes:
        definitions: SignatureDef messages by signature name.
        signatures: The same as `Signature`s.
        max_rows: Most rows of a request, which an export of this project records; None without a limit.
        any_shape: Whether the graph can be given tensors of shapes that its signatures do not allow, as TF Serving
            gives them to any graph.
        text_steps: Generates texts one token at a time; None for a model that can't.
        threads: Executor of its runs.

    Raises:
        OSError, ValueError, RuntimeError, tf.errors.OpError: The folder is not a complete SavedModel.
    """

    def __init__(self, name: str, version: int, path: Path, tags: Sequence[str] = ("serve",)) -> None:
        self.name = name
        self.version = version
        self.path = path
        loaded = tf.saved_model.load(str(path), tags=list(tags))
        graph = _read_graph(path, tags)
        self.definitions: Mapping[str, Any] = dict(graph.signature_def)
        self.any_shape = not any(FATAL_OPERATIONS.search(name) for name in _operations(graph))
        self.signatures = {key: Signature.from_definition(self.definitions[key]) for key in loaded.signatures}
        self.max_rows = _read_max_rows(path)
        self._functions = {key: Function(function) for key, function in loaded.signatures.items()}
        self.text_steps = TextSteps.of(loaded) if GENERATE in self.signatures else None
        self._loaded = loaded  # its functions live only as long as it does
        self.threads = ThreadPoolExecutor(MAX_RUNS, f"{name}-{version}")

    def run(
        self,
        signature: str,
        inputs: list[Array],
        outputs: tuple[str, ...],
        cancellation: CancellationManager | None = None,
    ) -> list[Array]:
        """Run a signature.

        Args:
            signature: Its name.
            inputs: Arrays in the order of its inputs.
            outputs: Aliases of the requested outputs.
            cancellation: Ends the run from another thread, at the next iteration of a loop.

        Raises:
            StatusError: What TensorFlow raised, with its code.
        """
        results = self._functions[signature](inputs, cancellation or CancellationManager())
        named = dict(zip(self.signatures[signature].outputs, results, strict=True))
        return [named[alias].numpy() for alias in outputs]

    def warm_up(self, times: int = 1) -> int:
        """Replay each recorded request and return their number.

        Raises:
            StatusError: The model refuses a recorded request.
        """
        path = self.path / WARMUP_FILE
        if not path.exists():
            return 0
        count = 0
        for record in tf.data.TFRecordDataset(str(path)).take(MAX_WARMUP_RECORDS).as_numpy_iterator():
            log = PredictionLog.FromString(record)
            if log.WhichOneof("log_type") != "predict_log":
                continue
            request = log.predict_log.request
            key = request.model_spec.signature_name or DEFAULT_SIGNATURE
            signature = self.signatures[key]
            arrays = order_inputs(signature, read_protos(signature, request.inputs), any_shape=False)
            for _ in range(times):
                self.run(key, arrays, tuple(signature.outputs))
                if key == GENERATE and self.text_steps is not None:
                    self.text_steps.warm_up(dict(zip(signature.inputs, arrays, strict=True)))
            count += 1
        return count

    def close(self) -> None:
        """Release the memory."""
        self.threads.shutdown(wait=False)
        self._functions.clear()
        self.text_steps = None
        self._loaded = None
        gc.unfreeze()
        gc.collect()  # a loaded model is full of reference cycles
        gc.freeze()


def _read_graph(path: Path, tags: Sequence[str]) -> Any:
    """Return the MetaGraphDef with these tags."""
    saved = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    return next(graph for graph in saved.meta_graphs if set(graph.meta_info_def.tags) == set(tags))


def _operations(graph: Any) -> set[str]:
    """Return the names of the operations of a graph and of its functions."""
    functions = graph.graph_def.library.function
    nodes = itertools.chain(graph.graph_def.node, *(function.node_def for function in functions))
    return {node.op for node in nodes}


def _read_max_rows(path: Path) -> int | None:
    try:
        return int(json.loads((path / RECIPE_FILE).read_text())["limits"]["rows"])
    except (OSError, ValueError, KeyError, TypeError):  # not an export of this project
        return None
