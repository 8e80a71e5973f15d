"""Random sequences and their reversals, for an encoder-decoder whose right answer is known."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recipes.config import ReversalData
from recipes.data.batch_sizes import BatchSizes
from recipes.data.passes import each_pass, read_ahead
from recipes.data.streams import stream

Ids = npt.NDArray[np.int32]

PADDING, START, END = 0, 1, 2
FIRST_SYMBOL = 3


@dataclass(frozen=True)
class Reversals:
    """Sequences with what is to be written for them.

    Attributes:
        source: Symbols, then padding, (n, longest).
        target: The symbols backwards, the end, then padding, (n, longest + 1).
    """

    source: Ids
    target: Ids

    @property
    def previous(self) -> Ids:
        """What the decoder has before it at each place: the start, then the target, (n, longest + 1)."""
        return np.concatenate([np.full((len(self.target), 1), START, np.int32), self.target[:, :-1]], axis=1)

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """1 where the target is no padding, else 0."""
        return (self.target != PADDING).astype(np.float32)


def draw_reversals(count: int, data: ReversalData, random: np.random.Generator) -> Reversals:
    """Draw sequences of evenly spread lengths."""
    lengths = random.integers(data.shortest, data.longest, count, endpoint=True)
    symbols = random.integers(FIRST_SYMBOL, FIRST_SYMBOL + data.symbols, (count, data.longest))
    place = np.arange(data.longest + 1)
    source = np.where(place[:-1] < lengths[:, np.newaxis], symbols, PADDING)
    mirrored = np.take_along_axis(source, np.maximum(lengths[:, np.newaxis] - 1 - place, 0), axis=1)
    target = np.where(place < lengths[:, np.newaxis], mirrored, PADDING)
    target[np.arange(count), lengths] = END
    return Reversals(source.astype(np.int32), target.astype(np.int32))


def held_out(data: ReversalData, seed: int) -> Reversals:
    """Return the sequences of a part that is not trained on, by a seed of its own."""
    return draw_reversals(data.held_out, data, stream(seed, "held-out sequences"))


class TrainingReversals:
    """Batches that depend on the seed, the epoch and the step alone.

    Args:
        data: What the sequences are like.
        sizes: Sequences of each step.
        seed: Seed of the draws.

    Attributes:
        epoch: The epoch that the next pass over `dataset` is for, an int32 variable.
        dataset: ((source, previous), target, weights).
    """

    def __init__(self, data: ReversalData, sizes: BatchSizes, seed: int) -> None:
        self.sizes = sizes
        fixed = sizes.batch_size if sizes.settings.name == "fixed" else None
        self.epoch = tf.Variable(0, dtype=tf.int32, trainable=False)

        def read(epoch: Any, step: Any, size: Any) -> tuple[Ids, Ids]:
            drawn = draw_reversals(int(size), data, stream(seed, "training sequences", epoch, step))
            return drawn.source, drawn.target

        def load(step: Any, size: Any) -> Any:
            source, target = tf.numpy_function(read, [self.epoch, step, size], (tf.int32, tf.int32))
            source = tf.ensure_shape(source, (fixed, data.longest))
            target = tf.ensure_shape(target, (fixed, data.longest + 1))
            previous = tf.pad(target[:, :-1], [[0, 0], [1, 0]], constant_values=START)
            return (source, previous), target, tf.cast(target != PADDING, tf.float32)

        self.dataset = each_pass(sizes, self.epoch, load)


def evaluation_batches(reversals: Reversals, batch_size: int = 250) -> tf.data.Dataset:
    """Return every sequence once, as ((source, previous), target, weights)."""
    inputs = (reversals.source, reversals.previous)
    dataset = tf.data.Dataset.from_tensor_slices((inputs, reversals.target, reversals.weights))
    return read_ahead(dataset.batch(batch_size), 2)
