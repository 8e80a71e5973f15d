"""The number of examples of each step: fixed or random batch sizes."""

import numpy as np
import numpy.typing as npt

from recipes.config import BatchSchedule, Recipe, require
from recipes.data.streams import stream

Sizes = npt.NDArray[np.int64]


class BatchSizes:
    """The number of examples of each step of a training: a function of the seed and the epoch.

    `fixed` is always batch_size. `random` is drawn uniformly from batch_size to the largest, in pairs whose sum is
    batch_size + largest. So every epoch has the same number of steps and of examples, and the fraction of the steps
    is the fraction of the examples, to within one batch. The examples after the last whole batch of an epoch are
    dropped.

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
        self.epochs = epochs
        self.seed = seed
        fixed = settings.name == "fixed"
        self.largest = batch_size if fixed else min(settings.largest, examples)
        self.steps_per_epoch = 2 * examples // (batch_size + self.largest)

    def of_epoch(self, epoch: int) -> Sizes:
        """Return the sizes of an epoch's batches, (steps_per_epoch,); epochs count from 0."""
        if self.settings.name == "fixed":
            return np.full(self.steps_per_epoch, self.batch_size)
        pairs, one_left = divmod(self.steps_per_epoch, 2)
        random, total = stream(self.seed, "batch sizes", epoch), self.batch_size + self.largest
        drawn = random.integers(self.batch_size, self.largest, pairs, endpoint=True)
        paired = np.stack([drawn, total - drawn], axis=1).ravel()
        return np.concatenate([paired, np.full(one_left, total // 2)])

    @property
    def mean(self) -> float:
        """The mean size of an epoch's batches."""
        return float(self.of_epoch(0).mean())

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.steps_per_epoch


def batch_sizes(recipe: Recipe, examples: int) -> BatchSizes:
    """Return how many examples each step of a recipe takes.

    Args:
        recipe: Its settings. Gradient descent takes all examples at once.
        examples: Examples per epoch.

    Raises:
        UserError: A batch larger than an epoch.
    """
    size = examples if recipe.optimizer.name == "gradient-descent" else recipe.training.batch_size
    require(
        size <= examples,
        f"training.batch_size must be at most the number of training examples, {examples}",
        batch_size=size,
    )
    epochs, seed = recipe.training.epochs, recipe.training.seed
    return BatchSizes(recipe.batches, size, examples=examples, epochs=epochs, seed=seed)
