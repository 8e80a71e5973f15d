"""Token ids → batches of windows: each token of a window is to be told from those before it."""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recipes.config import StreamedTextData, TextData, UserError
from recipes.data.batch_sizes import BatchSizes
from recipes.data.passes import each_pass, read_ahead
from recipes.data.streams import stream
from recipes.data.tokens import Part

Ids = npt.NDArray[np.int32]

EVALUATION_TOKENS = 2**13
"""Tokens in a batch of evaluation windows: it fits a laptop's memory, and fills its cores."""


class TrainingWindows:
    """Windows whose places depend on the seed, the epoch and the step alone.

    Random windows begin anywhere. Those of a stateful recipe go on where the ones of the step
    before ended, in batch_size places at once (truncated back-propagation through time); where they
    begin is drawn anew each epoch.

    Set `epoch` before each pass (`recipes.training.fit` does): a killed run goes on as if nothing
    had happened.

    Args:
        tokens: Ids of the whole text, (tokens,); may be mapped from a file.
        part: Where the training part is; longer than a window.
        data: Size of a window, and whether they are random.
        sizes: Windows of each step.
        seed: Seed of their places.

    Raises:
        UserError: A part too short for the windows of a stateful recipe.

    Attributes:
        epoch: The epoch that the next pass over `dataset` is for, an int32 variable.
        dataset: int32 ids (batch, block_size), and the ids that follow them, of the same shape.
    """

    def __init__(
        self, tokens: npt.NDArray[Any], part: Part, data: TextData, sizes: BatchSizes, seed: int
    ) -> None:
        block_size, steps = data.block_size, sizes.steps_per_epoch
        fixed = sizes.batch_size if sizes.settings.name == "fixed" else None
        carried = isinstance(data, StreamedTextData) and data.stateful
        row = (steps if carried else 1) * block_size + 1  # tokens read one after the other
        if row > len(part):
            raise UserError(
                f"data.stateful: an epoch reads {steps} windows of {block_size} tokens in a row, and the "
                f"training part has {len(part):,}. Received: training.steps_per_epoch={steps}"
            )
        self.sizes = sizes
        self.epoch = tf.Variable(0, dtype=tf.int32, trainable=False)

        def read(epoch: Any, step: Any, size: Any) -> Ids:
            random = stream(seed, "windows", epoch, 0 if carried else step)
            starts = random.integers(part.start, part.stop - row, int(size), endpoint=True)
            if carried:
                starts += int(step) * block_size
            return tokens[starts[:, np.newaxis] + np.arange(block_size + 1)].astype(np.int32)

        def pair(step: Any, size: Any) -> tuple[Any, Any]:
            windows = tf.numpy_function(read, [self.epoch, step, size], tf.int32)
            windows = tf.ensure_shape(windows, (fixed, block_size + 1))
            return windows[:, :-1], windows[:, 1:]

        self.dataset = each_pass(sizes, self.epoch, pair)


def evaluation_windows(tokens: npt.NDArray[Any], part: Part, data: TextData) -> tf.data.Dataset:
    """Return windows in which every token of a part is scored exactly once.

    Windows begin every `evaluation_stride` tokens, which is block_size unless it is set: then they do
    not overlap. In the first one all tokens count, in the others the last `evaluation_stride`, which
    have at least block_size - evaluation_stride tokens before them. The first token of a part
    is told from the last one of the part before it; where there is none it is not scored.

    Args:
        tokens: Ids of the whole text, (tokens,).
        part: What is scored.
        data: Size of a window, and stride.

    Returns:
        Batches of ids (n, block_size), the ids that follow, and float32 weights of the same shape:
        0 where a token is not scored, else such that Keras's mean over all places of all windows is
        the mean over the scored tokens.
    """
    block_size = data.block_size
    stride = data.evaluation_stride or block_size
    first = max(part.start - 1, 0)
    count = part.stop - 1 - first  # scored tokens
    starts = first + np.arange(0, max(count - block_size, 0) + stride, stride)
    batch = min(max(1, EVALUATION_TOKENS // block_size), len(starts))
    # All batches are full, so that XLA compiles once: windows past the end score nothing.
    starts = np.pad(starts, (0, -len(starts) % batch), constant_values=part.stop)
    weight = len(starts) * block_size / count

    def read(begin: Any) -> tuple[Ids, Ids, npt.NDArray[np.float32]]:
        places = starts[int(begin) : int(begin) + batch]  # (n,)
        place = places[:, np.newaxis] + np.arange(block_size + 1)  # (n, block_size + 1)
        windows = tokens[np.minimum(place, part.stop - 1)].astype(np.int32)
        target = place[:, 1:]
        fresh = (target > places[:, np.newaxis] + block_size - stride) | (places[:, np.newaxis] == first)
        scored = fresh & (target < part.stop)
        return windows[:, :-1], windows[:, 1:], np.where(scored, weight, 0).astype(np.float32)

    def load(begin: Any) -> tuple[Any, Any, Any]:
        kinds = (tf.int32, tf.int32, tf.float32)
        return tuple(
            tf.ensure_shape(values, (batch, block_size)) for values in tf.numpy_function(read, [begin], kinds)
        )

    begins = tf.data.Dataset.range(0, len(starts), batch)
    return read_ahead(begins.map(load, num_parallel_calls=1), 2)
