"""The functions of an export that generate texts one token at a time: see `serving.signatures.text_steps`."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import tensorflow as tf
from tensorflow.python.eager.cancellation import CancellationManager

from serving.server.function import Function
from serving.tensors import Array, Arrays

INPUTS = ("prompt", "max_new_tokens", "temperature", "top_k", "top_p", "seed")
SETTINGS = ("temperature", "top_k", "top_p")

State = list[Any]
"""Tensors whose rows belong to texts under way: the next token's logits, and the model's cache."""


class TextSteps:
    """Reads prompts, and generates the next token of each text.

    Args:
        read_prompts, next_tokens: The functions of the export.
    """

    def __init__(self, read_prompts: Any, next_tokens: Any) -> None:
        self._read_prompts, self._next_tokens = Function(read_prompts), Function(next_tokens)

    @classmethod
    def of(cls, loaded: Any) -> Self | None:
        """Return the functions of a loaded SavedModel, or None if it has none."""
        functions = [getattr(loaded, name, None) for name in ("read_prompts", "next_tokens")]
        concrete = [list(getattr(function, "concrete_functions", ())) for function in functions]
        return cls(concrete[0][0], concrete[1][0]) if all(concrete) else None

    def read(self, inputs: Arrays, cancellation: CancellationManager) -> tuple[Array, Array, State]:
        """Read prompts.

        Args:
            inputs: The inputs of the signature `generate`, by name.
            cancellation: Ends the run from another thread.

        Returns:
            The number of tokens of each prompt, int32 (n,); a random number for each new token, float32
            (n, count); and the state.

        Raises:
            StatusError: The graph refuses the inputs.
        """
        lengths, draws, *state = self._read_prompts([inputs[name] for name in INPUTS], cancellation)
        return lengths.numpy(), draws.numpy(), state

    def step(self, draws: Array, settings: Sequence[Array], state: State) -> tuple[list[bytes], State]:
        """Generate one token of each text.

        Args:
            draws: A random number for each text, float32 (n,).
            settings: The values of SETTINGS, (n,) each.
            state: The state after the tokens so far.

        Returns:
            The bytes of each token, and the state after it.
        """
        tokens, *state = self._next_tokens([draws, *settings, *state], CancellationManager())
        return tokens.numpy().tolist(), state

    def warm_up(self, inputs: Arrays) -> None:
        """Run both functions once, and change the rows, so that no request waits for a first run."""
        _, draws, state = self.read(inputs, CancellationManager())
        state = leave_out(join(state, state), np.arange(len(draws)))
        self.step(draws[:, 0], [inputs[name] for name in SETTINGS], state)


def leave_out(state: State, kept: Array) -> State:
    """Return the state of the rows with these numbers."""
    return [tf.gather(tensor, kept) for tensor in state]


def join(*states: State) -> State:
    """Return the state of the rows of all states, in their order."""
    return [tf.concat(tensors, axis=0) for tensors in zip(*states, strict=True)]
