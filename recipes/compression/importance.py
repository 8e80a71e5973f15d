"""Importance scores of units, and the choice of the least important ones."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from recipes.compression.units import FIXED, Kind, Tie, Units
from recipes.config import UserError

Scores = npt.NDArray[np.float64]


def magnitude(units: Units) -> Scores:
    """Sum of |w| of the weights that produce a unit (Li et al. 2017, "Pruning Filters", arXiv:1608.08710).

    Returns:
        (units.count,), relative to their layer's mean, so that layers of different widths can be compared.
    """
    scores = np.zeros(units.count)
    for tie in units.ties:
        if tie.role == "makes":
            _add(scores, tie, np.abs(ops.convert_to_numpy(tie.variable)))
    for group in units.groups:
        scores[group.units] /= scores[group.units].mean() or 1.0
    return scores


def batch_normalization(units: Units) -> Scores:
    """|gamma| of the batch normalisation behind a unit (Liu et al. 2017, "Network Slimming", arXiv:1708.06519).

    Returns:
        (units.count,).

    Raises:
        UserError: A layer without batch normalisation behind it.
    """
    scores, seen = np.zeros(units.count), np.zeros(units.count, bool)
    for tie in units.ties:
        if tie.role == "scales" and tie.variable.name == "gamma":
            _add(scores, tie, np.abs(ops.convert_to_numpy(tie.variable)))
            seen[tie.units[tie.units != FIXED]] = True
    for group in units.groups:
        if not seen[group.units].all():
            raise UserError(
                f"importance batch-norm: layer {group.name!r} has no batch normalisation. "
                "Leave it out, or choose magnitude or taylor"
            )
    return scores


def taylor(units: Units, gradients: Iterable[Mapping[str, npt.NDArray[Any]]]) -> Scores:
    """First-order change of the loss when a unit is removed (Molchanov et al. 2019, arXiv:1906.10771).

    The mean over batches of |sum of w dL/dw| over the weights that produce the unit.

    Args:
        units: The units.
        gradients: For each batch, dL/dw by the variable's path; a missing one counts as 0.

    Returns:
        (units.count,).
    """
    total, batches = np.zeros(units.count), 0
    for batch in gradients:
        change = np.zeros(units.count)
        for tie in units.ties:
            if tie.role == "makes" and tie.variable.path in batch:
                _add(change, tie, ops.convert_to_numpy(tie.variable) * batch[tie.variable.path])
        total += np.abs(change)
        batches += 1
    return total / batches


def least(units: Units, scores: Scores, fractions: Mapping[Kind, float]) -> npt.NDArray[np.bool_]:
    """Choose the least important units of each kind in the whole model.

    Args:
        units: The units.
        scores: Importance of each, (units.count,).
        fractions: Fraction to choose of the units of each kind, in [0, 1); kinds that are not named keep all.

    Returns:
        (units.count,), true for the chosen. Each layer keeps its most important unit.
    """
    chosen = np.zeros(units.count, bool)
    for kind, fraction in fractions.items():
        ranked = [group for group in units.groups if group.kind == kind]
        if not ranked:
            continue
        best = [group.units[np.argmax(scores[group.units])] for group in ranked]
        members = np.concatenate([group.units for group in ranked])
        free = np.setdiff1d(members, best)
        count = min(round(len(members) * fraction), len(free))
        chosen[free[np.argsort(scores[free], kind="stable")[:count]]] = True
    return chosen


def _add(scores: Scores, tie: Tie, values: npt.NDArray[Any]) -> None:
    """Add up the entries of each unit."""
    others = tuple(axis for axis in range(values.ndim) if axis != tie.axis)
    own = tie.units != FIXED
    np.add.at(scores, tie.units[own], values.sum(axis=others, dtype=np.float64)[own])
