"""Token ids → batches of windows, in which each token is predicted from those before it."""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recipes.config import TextData
from recipes.data.batch_sizes import BatchSizes
from recipes.data.batches import TrainingBatches, fixed_size, map_numpy, prefetch, steps_of_epoch
from recipes.data.streams import stream
from recipes.data.tokens import TextPart

Ids = npt.NDArray[np.int32]

EVALUATION_TOKENS = 2**13
"""Tokens in a batch of evaluation windows: enough to use all cores, and little enough for a laptop's memory."""


def training_windows(
    tokens: npt.NDArray[Any], part: TextPart, data: TextData, sizes: BatchSizes, seed: int
) -> TrainingBatches:
    """Return windows in random order: int32 ids (batch, block_size), and the ids one position later.

    Each pass cuts the text into windows at an offset of its own, and takes every window once. As many draws with
    replacement would miss 37 % of the windows.

    Args:
        tokens: Ids of the whole text, (tokens,); may be mapped from a file.
        part: The training part; longer than a window.
        data: Size of a window.
        sizes: Windows of each step.
        seed: Seed of the offsets and the orders.
    """
    block_size = data.block_size
    per_pass = max(1, len(part) // block_size - 1)  # windows, whatever the offset
    last_offset = len(part) - 1 - per_pass * block_size

    @functools.lru_cache(maxsize=2)  # a batch may end one pass and begin the next
    def starts_of(number: int) -> npt.NDArray[np.int64]:
        random = stream(seed, "windows", number)
        offset = part.start + random.integers(0, last_offset, endpoint=True)
        return offset + block_size * random.permutation(per_pass)

    def read(epoch: int, step: int) -> tuple[Ids, Ids]:
        batches = sizes.of_epoch(epoch)
        first = int(epoch) * batches.sum() + batches[:step].sum()  # windows before this step, over all epochs
        places = (divmod(int(window), per_pass) for window in range(first, first + batches[step]))
        starts = np.array([starts_of(number)[place] for number, place in places])
        ids = tokens[starts[:, np.newaxis] + np.arange(block_size + 1)].astype(np.int32)
        return ids[:, :-1], ids[:, 1:]

    ids = tf.TensorSpec((fixed_size(sizes), block_size), tf.int32)
    return TrainingBatches(sizes, lambda epoch: map_numpy(steps_of_epoch(sizes, epoch), read, (ids, ids)))


def evaluation_windows(tokens: npt.NDArray[Any], part: TextPart, data: TextData) -> tf.data.Dataset:
    """Return windows in which every token of a part is scored exactly once.

    Windows start every `evaluation_stride` tokens. In the first one all tokens are scored, in the others the last
    `evaluation_stride`, each predicted from at least block_size - evaluation_stride tokens before it. The first token
    of a part is predicted from the last one of the part before; the first token of the text is not scored.

    Args:
        tokens: Ids of the whole text, (tokens,).
        part: The part to score.
        data: Size of a window, and stride (None: the size, no overlap).

    Returns:
        Batches of ids (n, block_size), the ids one position later, and float32 weights of the same shape: 0 where a
        token is not scored, else the number for which Keras's mean over all positions is the mean over the scored
        tokens.
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

    def read(window: int) -> tuple[Ids, Ids, npt.NDArray[np.float32]]:
        begins = starts[window : window + batch, np.newaxis]  # (n, 1)
        positions = begins + np.arange(block_size + 1)  # (n, block_size + 1)
        ids = tokens[np.minimum(positions, part.stop - 1)].astype(np.int32)
        targets = positions[:, 1:]
        scored = ((targets > begins + block_size - stride) | (begins == first)) & (targets < part.stop)
        return ids[:, :-1], ids[:, 1:], np.where(scored, weight, 0).astype(np.float32)

    ids, weights = (tf.TensorSpec((batch, block_size), kind) for kind in (tf.int32, tf.float32))
    windows = tf.data.Dataset.range(0, len(starts), batch)
    return prefetch(map_numpy(windows, read, (ids, ids, weights)), 2)
