"""The networks, in keras.ops and Keras layers only."""

from typing import Any

Tensor = Any
"""A tensor of the Keras backend, which has no types."""
