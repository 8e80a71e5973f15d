"""Random numbers from a seed: a stream of its own for each use, whatever else the seed is used for."""

import zlib

import numpy as np
import numpy.typing as npt


def stream(seed: int, use: str, *place: int) -> np.random.Generator:
    """Return the generator of one use of a seed.

    The use and the place are the spawn key of NumPy's SeedSequence, which it never takes for a part of
    the seed. A list of numbers as a seed would not do: [0, 1] is 2**32, and [3, 0] is [3].

    Args:
        seed: A setting's seed, 0 to 2**32 - 1.
        use: What the numbers are for, as "windows".
        place: Where in that use, as epoch and step, each 0 to 2**32 - 1.
    """
    return np.random.default_rng(
        np.random.SeedSequence(seed, spawn_key=(zlib.crc32(use.encode()), *map(int, place)))
    )


def draw_keys(random: np.random.Generator, count: int) -> npt.NDArray[np.int32]:
    """Draw keys of TensorFlow's stateless random operations, (count, 2).

    A key is used once: by one operation that draws, or by one that splits it.
    """
    limits = np.iinfo(np.int32)
    return random.integers(limits.min, limits.max, (count, 2), np.int32, endpoint=True)
