"""The number of examples of each step: fixed or random batch sizes."""

import functools

import numpy as np
import numpy.typing as npt

from recipes.config import BatchSchedule
from recipes.data.streams import stream

Times = npt.NDArray[np.float64]
Sizes = npt.NDArray[np.int64]


class BatchSizes:
    """The number of examples of each step of a training: a function of the seed and the epoch.

    `fixed` is always batch_size; `random` is drawn uniformly from batch_size to the largest. The examples of an
    epoch that are fewer than its next batch are dropped.

    Args:
        settings: Name and range.
        batch_size: Examples of the smallest batch, at most `examples`.
        examples: Examples per epoch.
        epochs: Epochs of the training.
        seed: Seed of the random sizes.
    """

    def __init__(
        self, settings: BatchSchedule, batch_size: int, *, examples: int, epochs: int, seed: int
    ) -> None:
        self.settings = settings
        self.batch_size = batch_size
        self.examples = examples
        self.epochs = epochs
        self.seed = seed

    def of_epoch(self, epoch: int) -> Sizes:
        """Return the sizes of an epoch's batches, (steps,), at least one; epochs count from 0."""
        if self.settings.name == "fixed":
            return np.full(self.examples // self.batch_size, self.batch_size)
        random = stream(self.seed, "batch sizes", epoch)
        largest = min(self.settings.largest, self.examples)
        drawn = random.integers(self.batch_size, largest, self.examples // self.batch_size, endpoint=True)
        return drawn[np.cumsum(drawn) <= self.examples]

    def mean(self, epoch: int) -> float:
        """Return the mean size of an epoch's batches."""
        return float(self.of_epoch(epoch).mean())

    @functools.cached_property
    def times(self) -> Times:
        """Epochs passed before each step, and after the last one: (steps + 1,).

        Examples count, not steps: half of an epoch's examples are half of its time.
        """
        if self.settings.name == "fixed":
            steps = self.examples // self.batch_size
            return np.arange(self.epochs * steps + 1) / steps
        parts = []
        for epoch in range(self.epochs):
            sizes = self.of_epoch(epoch)
            parts.append(epoch + (np.cumsum(sizes) - sizes) / sizes.sum())
        return np.concatenate([*parts, [self.epochs]])

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return len(self.times) - 1

    @property
    def fewest_steps(self) -> int:
        """Steps of the shortest epoch."""
        return int(np.bincount(self.times[:-1].astype(int)).min())
