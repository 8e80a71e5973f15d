"""Silence units: set their weights to 0, so that the model computes as if they were removed."""

import numpy as np
import numpy.typing as npt
from keras import ops

from recipes.compression.units import FIXED, Numbers, Units

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
