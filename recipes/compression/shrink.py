"""Remove units from a model: set them to 0, then rebuild the model without those that no layer reads.

    silence(units, least(units, magnitude(units), {"filters": 0.5}))
    smaller = shrink(model)

The smaller model computes the same outputs, up to float rounding.
"""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from recipes.compression.units import FIXED, Numbers, Units, find_units
from recipes.models.transformer import TransformerLanguageModel

Flags = npt.NDArray[np.bool_]


def silence(units: Units, chosen: Flags) -> None:
    """Set every weight that is tied to the chosen units to 0, those that read them included.

    Args:
        units: The units of a model, which is changed.
        chosen: (units.count,).
    """
    for tie in units.ties:
        keep = ~belongs(tie.units, chosen)
        shape = [1] * len(tie.variable.shape)
        shape[tie.axis] = -1
        tie.variable.assign(ops.convert_to_numpy(tie.variable) * keep.reshape(shape))


def unread(units: Units) -> Flags:
    """Find the units that no layer reads: all weights that read them are 0.

    Removing such a unit changes no output, and may leave others unread, which are found too. A layer whose
    units are all unread keeps its first one.

    Returns:
        (units.count,).
    """
    gone = np.zeros(units.count, bool)
    while True:
        read = _read(units, gone)
        for group in units.groups:
            read[group.units[0]] |= not read[group.units].any()
        if (gone == ~read).all():
            return gone
        gone = ~read


def _read(units: Units, gone: Flags) -> Flags:
    """Return which units are read by any that is kept."""
    made = {id(tie.variable): tie for tie in units.ties if tie.role == "makes"}
    read = np.ones(units.count, bool)
    for group in units.groups:
        read[group.units] = False
    for tie in units.ties:
        if tie.role != "reads":
            continue
        values = np.moveaxis(ops.convert_to_numpy(tie.variable) != 0, tie.axis, 0)
        maker = made.get(id(tie.variable))
        if maker is not None:  # the unit that a layer produces is the last axis of its kernel
            values = values[..., ~belongs(maker.units, gone)]
        used = values.reshape(len(tie.units), -1).any(axis=1)
        read[tie.units[used & (tie.units != FIXED)]] = True
    return read


def belongs(numbers: Numbers, chosen: Flags) -> Flags:
    """Return which entries belong to a chosen unit."""
    return np.where(numbers == FIXED, False, chosen[numbers])


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
