"""Batch sizes that do not change."""

from recipes.config import BatchSchedule
from recipes.data.batch_sizes import BatchSizes


def fixed_sizes(batch_size: int, *, steps: int, epochs: int = 1) -> BatchSizes:
    """Return `steps` batches an epoch, all of one size."""
    return BatchSizes(BatchSchedule(), batch_size, examples=steps * batch_size, epochs=epochs, seed=0)
