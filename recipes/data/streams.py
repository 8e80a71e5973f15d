"""Independent streams of random numbers from one seed."""

import zlib

import numpy as np
import numpy.typing as npt


def stream(seed: int, use: str, *index: int) -> np.random.Generator:
    """Return a random generator for one use of a seed.

    Use and index are the spawn key of NumPy's SeedSequence, so that different streams are independent. A list as the
    seed does not ensure this: [0, 1] is the same seed as 2**32, and [3, 0] as [3].

    Args:
        seed: 0 to 2**32 - 1.
        use: Name of the stream, such as "windows".
        index: Part of the stream, such as epoch and step, each 0 to 2**32 - 1.
    """
    return np.random.default_rng(
        np.random.SeedSequence(seed, spawn_key=(zlib.crc32(use.encode()), *map(int, index)))
    )


def draw_keys(random: np.random.Generator, count: int) -> npt.NDArray[np.int32]:
    """Draw keys of TensorFlow's stateless random operations, (count, 2).

    A key must be used once, by an operation that draws or by one that splits it.
    """
    limits = np.iinfo(np.int32)
    return random.integers(limits.min, limits.max, (count, 2), np.int32, endpoint=True)
