"""Rebuild a model without its unread units: smaller files, fewer multiply-adds, faster.

    silence(units, least(units, magnitude(units), {"filters": 0.5}))
    smaller = shrink(model)

The smaller model computes the same outputs, up to float rounding.
"""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from recipes.compression.masks import Flags, belongs, unread
from recipes.compression.units import FIXED, Units, find_units
from recipes.models.transformer import TransformerLanguageModel


def shrink(model: keras.Model) -> keras.Model:
    """Return a model without the units that no layer reads.

    It shrinks dense and convolution layers (through batch normalisation, pooling, flattening, additions and
    concatenations between them), attention heads and feed-forward units.

    Args:
        model: A functional model, a Sequential, or a TransformerLanguageModel; it is not changed.

    Raises:
        UserError: A layer of an unknown kind, which is named.
    """
    units = find_units(model)
    gone = unread(units)
    rebuild = _transformer if isinstance(model, TransformerLanguageModel) else _functional
    smaller = rebuild(model, gone, units)
    _copy_weights(model, smaller, units, gone)
    return smaller


def _functional(model: keras.Model, gone: Flags, units: Units) -> keras.Model:
    def resized(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in units.outputs:
            made = units.outputs[layer.name]
            config["units" if "units" in config else "filters"] = int((~belongs(made, gone)).sum())
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=resized)


def _transformer(model: Any, gone: Flags, units: Units) -> keras.Model:
    left = [int((~gone[group.units]).sum()) for group in units.groups]
    sizes = list(zip(left[0::2], left[1::2], strict=True))  # heads and feed-forward units of each block
    return type(model).from_config({**model.get_config(), "sizes": sizes})


def _copy_weights(model: keras.Model, smaller: keras.Model, units: Units, gone: Flags) -> None:
    for old, new in zip(model.weights, smaller.weights, strict=True):
        values: npt.NDArray[Any] = ops.convert_to_numpy(old)
        for tie in units.ties:
            if tie.variable is old:
                values = np.compress((tie.units == FIXED) | ~belongs(tie.units, gone), values, axis=tie.axis)
        if values.shape != tuple(new.shape):
            raise ValueError(f"{old.path}: cut to {values.shape}, wanted {tuple(new.shape)}")
        new.assign(values)
