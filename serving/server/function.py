"""Functions of a SavedModel whose runs can be ended."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context, execute
from tensorflow.python.eager.cancellation import CancellationManager

from serving.server.errors import from_tensorflow


class Function:
    """A function of a loaded SavedModel whose run another thread can end at the next iteration of a loop.

    Generation ends at the next token, scoring at the next window; a graph without loops runs to its end.
    TensorFlow's public API can't end a run, which would continue to its last token after its caller left.
    Its `CancellationManager.get_cancelable_function` keeps the manager in a global variable, which calls in
    several threads take from each other; so this executes the operation as that method would.

    Args:
        concrete: The function.
    """

    def __init__(self, concrete: Any) -> None:
        self._context = context.context()
        self._name = concrete._inference_function.name.decode()
        self._num_outputs = len(concrete.outputs)
        self._captured = list(concrete.captured_inputs)
        options = self._context.function_call_options.as_attrs()
        self._attributes = tuple(part for attribute in options.items() for part in attribute)

    def __call__(self, inputs: Sequence[Any], cancellation: CancellationManager) -> list[Any]:
        """Return the output tensors for inputs; those of a signature are in the order of their aliases.

        Raises:
            StatusError: What TensorFlow raised, with its code.
        """
        try:
            outputs: list[Any] = execute.execute_with_cancellation(
                self._name,
                num_outputs=self._num_outputs,
                inputs=[*map(tf.convert_to_tensor, inputs), *self._captured],
                attrs=self._attributes,
                ctx=self._context,
                cancellation_manager=cancellation,
            )
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from error
        return outputs
