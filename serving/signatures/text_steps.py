"""Generation one token at a time, for a server that streams texts and batches them continuously.

These two functions of an export are no signatures. TensorFlow Serving runs signatures only, so no client can call
them with a state of its own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from recipes.data.tokenizers import Tokenizer
from recipes.generation import decoding
from recipes.generation.decoding import LanguageModel
from serving.signatures.guards import Tensor


def functions(
    model: LanguageModel,
    tokenizer: Tokenizer,
    read: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[tf.TensorSpec],
) -> tuple[Any, Any]:
    """Return two functions; rows (n) of the state of both can be concatenated and left out.

    - `read_prompts` takes the inputs of the signature `generate`, with its checks, and returns the number of tokens
      of each prompt, int32 (n,), a random number for each new token, float32 (n, count), and the state;
    - `next_tokens` takes a random number, temperature, top_k and top_p of each row, (n,), and the state, and returns
      the bytes of each row's next token, string (n,), and the state after it.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        read: Checks the inputs of `generate`, and reads the prompts.
        inputs: Specs of these inputs.
    """
    structure: list[decoding.State] = []

    @tf.function(input_signature=inputs)
    def read_prompts(*inputs: Tensor) -> tuple[Tensor, ...]:
        _, lengths, _, _, draws, state = read(*inputs)
        structure.append(state)
        return lengths, draws, *tf.nest.flatten(state)

    _, _, *tensors = read_prompts.get_concrete_function().structured_outputs
    floats, integers = tf.TensorSpec((None,), tf.float32), tf.TensorSpec((None,), tf.int32)
    specs = [tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for tensor in tensors]

    @tf.function(input_signature=[floats, floats, integers, floats, *specs])
    def next_tokens(
        draws: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        # Flat, because functions order the tensors of a dictionary in another way as inputs than as outputs.
        state = tf.nest.pack_sequence_as(structure[0], tensors)
        ids, state = decoding.next_token(model, state, draws, temperature, top_k, top_p)
        return tf.gather(tf.constant(list(tokenizer.tokens)), ids), *tf.nest.flatten(state)

    return read_prompts, next_tokens
