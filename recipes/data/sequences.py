"""Random sequences and their reversals: a task for an encoder-decoder whose right answer is known."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recipes.config import ReversalData
from recipes.data.batch_sizes import BatchSizes
from recipes.data.batches import TrainingBatches, evaluation_batches, fixed_size, map_numpy, steps_of_epoch
from recipes.data.streams import stream

Ids = npt.NDArray[np.int32]

PADDING, START, END = 0, 1, 2
FIRST_SYMBOL = 3
EVALUATION_BATCH_SIZE = 250


class Reversals(NamedTuple):
    """Sequences and their reversals.

    Attributes:
        source: The symbols, then padding, (n, longest).
        previous: The decoder's inputs: the start, then the target without its last position, (n, longest + 1).
        target: The symbols in reverse order, the end, then padding, (n, longest + 1).
        weights: 0 where the target is padding, else 1, (n, longest + 1).
    """

    source: Ids
    previous: Ids
    target: Ids
    weights: npt.NDArray[np.float32]


def draw_reversals(count: int, data: ReversalData, random: np.random.Generator) -> Reversals:
    """Draw sequences of uniformly distributed lengths."""
    lengths = random.integers(data.shortest, data.longest, count, endpoint=True)
    symbols = random.integers(FIRST_SYMBOL, FIRST_SYMBOL + data.symbols, (count, data.longest))
    position = np.arange(data.longest + 1)
    source = np.where(position[:-1] < lengths[:, np.newaxis], symbols, PADDING)
    mirrored = np.take_along_axis(source, np.maximum(lengths[:, np.newaxis] - 1 - position, 0), axis=1)
    target = np.where(position < lengths[:, np.newaxis], mirrored, PADDING)
    target[np.arange(count), lengths] = END
    previous = np.pad(target[:, :-1], [(0, 0), (1, 0)], constant_values=START)
    source, previous, target = (ids.astype(np.int32) for ids in (source, previous, target))
    return Reversals(source, previous, target, weights=(target != PADDING).astype(np.float32))


def held_out_reversals(data: ReversalData, seed: int) -> Reversals:
    """Return the sequences of the validation or the test part, each drawn from its own seed."""
    return draw_reversals(data.held_out, data, stream(seed, "held-out sequences"))


def training_reversals(data: ReversalData, sizes: BatchSizes, seed: int) -> TrainingBatches:
    """Return new sequences in each batch: ((source, previous), target, weights)."""

    def read(epoch: int, step: int) -> Reversals:
        size = sizes.of_epoch(epoch)[step]
        return draw_reversals(size, data, stream(seed, "training sequences", epoch, step))

    batch = fixed_size(sizes)
    source = tf.TensorSpec((batch, data.longest), tf.int32)
    target = tf.TensorSpec((batch, data.longest + 1), tf.int32)
    weights = tf.TensorSpec((batch, data.longest + 1), tf.float32)
    signature = ((source, target), target, weights)
    return TrainingBatches(sizes, lambda epoch: map_numpy(steps_of_epoch(sizes, epoch), read, signature))


def evaluation_reversals(reversals: Reversals) -> tf.data.Dataset:
    """Return every sequence once, in order: ((source, previous), target, weights)."""
    source, previous, target, weights = reversals
    return evaluation_batches(((source, previous), target, weights), EVALUATION_BATCH_SIZE)
