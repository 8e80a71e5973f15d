"""Layers of a Transformer: attention, positions, norms, feed-forward, convolution.

Shapes: (batch, time, width) outside of attention, (batch, heads, time, head_width) inside.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers, ops

from recipes.models import Tensor

Turn = tuple[Tensor, Tensor]

BLOCKED = -1e9
"""Added to the score of a masked position: its softmax is 0 in float32."""
FIRST_TEMPERATURE = 1.5
"""Initial value of the learned temperature of normalised queries: scores of unit variance are too flat."""
ROTARY_BASE = 10_000.0


def dense(units: int, *, bias: bool, name: str, zero: bool = False) -> layers.Dense:
    """Return a dense layer on vectors; `zero` initialises it with 0, so that a residual branch starts as the identity."""
    start = "zeros" if zero else keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal")
    return layers.Dense(units, use_bias=bias, kernel_initializer=start, name=name)


def normalization(kind: str, name: str) -> layers.Layer:
    """Return LayerNorm (Ba et al. 2016, arXiv:1607.06450) or RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    if kind == "rms":
        return layers.RMSNormalization(epsilon=1e-6, name=name)
    return layers.LayerNormalization(epsilon=1e-5, name=name)


def unit_rms(x: Tensor) -> Tensor:
    """Scale the last axis to a root mean square of 1."""
    return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6)


def sinusoids(length: int, width: int) -> npt.NDArray[np.float32]:
    """Return sines and cosines of falling frequencies (Vaswani et al. 2017, arXiv:1706.03762), (length, width)."""
    angles = _angles(length, width // 2)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def rotary_turns(length: int, head_width: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the rotation of each position (Su et al. 2021, arXiv:2104.09864), two of (length, head_width).

    The cosines twice, for both features of a pair; minus the sines for the first feature, the sines for the second.
    """
    angles = _angles(length, head_width // 2)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.tile(cos, 2).astype(np.float32), np.concatenate([-sin, sin], axis=1).astype(np.float32)


def _angles(length: int, count: int) -> npt.NDArray[np.float64]:
    return np.arange(length)[:, np.newaxis] / ROTARY_BASE ** (np.arange(count) / count)


def rotate(x: Tensor, turn: Turn) -> Tensor:
    """Rotate the pairs (x_i, x_{i + head_width / 2}) by the angles of their position."""
    cos, sin = (ops.cast(part, x.dtype) for part in turn)
    return x * cos + ops.roll(x, x.shape[-1] // 2, axis=-1) * sin


def causal_mask(length: int) -> Tensor:
    """Return the mask, added to the scores, that hides later positions, (length, length)."""
    places = ops.arange(length)
    return ops.where(places[:, None] >= places, 0.0, BLOCKED)


class Attention(layers.Layer):
    """Multi-head attention, of a sequence to itself or to another.

    Plain 2-D dense kernels instead of Keras's MultiHeadAttention, whose 3-D ones Muon can't update.

    Args:
        heads: Number of heads.
        head_width: Size of each head's vectors; None for the width shared out among the heads.
        bias: Whether the dense layers have biases.
        qk_norm: Normalise queries and keys (Henry et al. 2020, arXiv:2010.04245).
    """

    def __init__(
        self, heads: int, *, bias: bool, qk_norm: bool, name: str, head_width: int | None = None
    ) -> None:
        super().__init__(name=name)
        self.heads = heads
        self.head_width = head_width or 0
        self.bias = bias
        self.qk_norm = qk_norm

    def build(self, shape: Sequence[int | None]) -> None:
        """Build the four projections."""
        width = shape[-1] or 0
        self.head_width = self.head_width or width // self.heads
        self.joined_width = self.heads * self.head_width
        for name in ("query", "key", "value"):
            setattr(self, name, dense(self.joined_width, bias=self.bias, name=name))
            getattr(self, name).build((None, None, width))
        self.output_projection = dense(width, bias=self.bias, name="output", zero=True)
        self.output_projection.build((None, None, self.joined_width))
        if self.qk_norm:
            start = keras.initializers.Constant(FIRST_TEMPERATURE)
            self.temperature = self.add_weight(
                shape=(self.heads, 1, 1), initializer=start, name="temperature"
            )

    def queries(self, x: Tensor, turn: Turn | None = None) -> Tensor:
        """Return (batch, heads, time, head_width); x is as `_split` takes it."""
        q = self._split(self.query(x))
        if self.qk_norm:
            q = unit_rms(q) * self.temperature
        return q if turn is None else rotate(q, turn)

    def keys_and_values(self, x: Tensor, turn: Turn | None = None) -> tuple[Tensor, Tensor]:
        """Return two of (batch, heads, time, head_width); x is as `_split` takes it."""
        k, v = self._split(self.key(x)), self._split(self.value(x))
        if self.qk_norm:
            k = unit_rms(k)
        return (k if turn is None else rotate(k, turn)), v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Return the values weighted by the softmax of the scores, (batch, time of q, width).

        Args:
            q: (batch, heads, time of q, head_width).
            k: (batch, heads, time of k, head_width).
            v: As k.
            mask: Added to the scores, broadcast to (batch, heads, time of q, time of k).
        """
        scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / math.sqrt(self.head_width)
        mixed = ops.matmul(ops.softmax(scores + mask), v)  # (batch, heads, time of q, head_width)
        joined = ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (-1, mixed.shape[2], self.joined_width))
        return self.output_projection(joined)

    def attend_from_one(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Return `attend` for a single query position, (batch, width), without transposing all keys."""
        column = ops.reshape(q, (-1, self.heads, self.head_width, 1))
        scores = ops.reshape(ops.matmul(k, column), (-1, self.heads, 1, k.shape[2]))
        mixed = ops.matmul(ops.softmax(scores / math.sqrt(self.head_width) + mask), v)
        return self.output_projection(ops.reshape(mixed, (-1, self.joined_width)))

    def call(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Attend from x to a context, both (batch, time, width)."""
        return self.attend(self.queries(x), *self.keys_and_values(context), mask)

    def _split(self, x: Tensor) -> Tensor:
        """Split (batch, time, width), or a single position (batch, width), into heads."""
        if len(x.shape) == 2:
            return ops.reshape(x, (-1, self.heads, 1, self.head_width))
        split = ops.reshape(x, (-1, x.shape[1], self.heads, self.head_width))
        return ops.transpose(split, (0, 2, 1, 3))


class FeedForward(layers.Layer):
    """Two dense layers with an activation between them, applied to each position.

    Args:
        units: Hidden units.
        activation: gelu, or relu-squared (So et al. 2021, arXiv:2109.08668).
        bias: Whether the dense layers have biases.
    """

    def __init__(self, units: int, *, activation: str, bias: bool, name: str) -> None:
        super().__init__(name=name)
        self.units = units
        self.activation = activation
        self.bias = bias

    def build(self, shape: Sequence[int | None]) -> None:
        """Build the dense layers."""
        self.widen = dense(self.units, bias=self.bias, name="widen")
        self.widen.build(shape)
        self.narrow = dense(shape[-1] or 0, bias=self.bias, name="narrow", zero=True)
        self.narrow.build((*shape[:-1], self.units))

    def call(self, x: Tensor) -> Tensor:
        """Return (batch, time, width)."""
        hidden = self.widen(x)  # (batch, time, units)
        if self.activation == "gelu":
            return self.narrow(ops.gelu(hidden))
        return self.narrow(ops.square(ops.relu(hidden)))


class CausalConvolution(layers.Layer):
    """A weighted sum of each position and those just before it, channel by channel (depthwise).

    It is initialised as the identity. Found by architecture search (Primer, So et al. 2021, arXiv:2109.08668).

    Args:
        size: Positions in the sum, at least 2.
    """

    def __init__(self, size: int, *, name: str) -> None:
        super().__init__(name=name)
        self.size = size

    def build(self, shape: Sequence[int | None]) -> None:
        """Add the weights, (size, width), with that of the position itself last."""

        def identity(shape: Sequence[int], dtype: Any = None) -> Tensor:
            return ops.concatenate([ops.zeros((shape[0] - 1, shape[1])), ops.ones((1, shape[1]))])

        self.kernel = self.add_weight(shape=(self.size, shape[-1]), initializer=identity, name="kernel")

    def pad(self, x: Tensor) -> Tensor:
        """Pad with zeros before the first position, (batch, time + size - 1, width)."""
        return ops.pad(x, [[0, 0], [self.size - 1, 0], [0, 0]])

    def call(self, x: Tensor) -> Tensor:
        """Return (batch, time, width)."""
        return self.mix(self.pad(x), x.shape[1])

    def newest(self, inputs: Tensor) -> Tensor:
        """Return the output at the last of `size` positions, (batch, size, width) → (batch, width)."""
        return ops.sum(inputs * self.kernel, axis=1)

    def mix(self, padded: Tensor, length: int) -> Tensor:
        """Return the outputs at the last `length` positions of (batch, length + size - 1, width)."""
        return sum(padded[:, shift : shift + length] * self.kernel[shift] for shift in range(self.size))
