"""Learning-rate schedules: pure functions of the time, and the one object that holds them in an optimizer. Batch-size and sparsity schedules below.

Each curve gives a factor of the highest learning rate. `t` is the time since the warm-up and
`total` all the time there is after it, both in epochs (parts of an epoch count), so a curve keeps
its shape when the batch size changes.

    config.Schedule(name="cosine", warmup=1)  →  LearningRate(...)  →  keras.optimizers.AdamW(...)
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from recipes.config import Pruning, Schedule, require

Tensor = Any
Times = npt.NDArray[np.float64]
Sizes = npt.NDArray[np.int64]


def linear_warmup(t: Tensor, *, length: float) -> Tensor:
    """Rise from 0 to 1 in a straight line (Goyal et al. 2017, arXiv:1706.02677): min(1, t / length)."""
    return ops.minimum(t / length, 1.0)


def constant(t: Tensor, total: float) -> Tensor:
    """Stay at 1."""
    return ops.ones_like(t)


def exponential(t: Tensor, total: float, *, rate: float) -> Tensor:
    """Multiply by `rate` an epoch: rate^t."""
    return ops.power(rate, t)


def polynomial(t: Tensor, total: float, *, power: float) -> Tensor:
    """Fall to 0 as (1 - t/total)^power."""
    return ops.power(1.0 - t / total, power)


def cosine(t: Tensor, total: float, *, final_fraction: float) -> Tensor:
    """Fall along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983).

    final + (1 - final) (1 + cos(pi t/total)) / 2
    """
    return final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + ops.cos(math.pi * t / total))


def inverse_square_root(t: Tensor, total: float, *, beta: float) -> Tensor:
    """Fall as 1 / sqrt(1 + beta t)."""
    return ops.rsqrt(1.0 + beta * t)


def one_cycle(
    t: Tensor, total: float, *, rise_fraction: float, initial_fraction: float, final_fraction: float
) -> Tensor:
    """Rise in a straight line, then fall along half a cosine (Smith & Topin 2018, arXiv:1708.07120).

    The line goes from `initial_fraction` to 1 in the first `rise_fraction` of the time.
    """
    peak = rise_fraction * total
    rise = initial_fraction + (1.0 - initial_fraction) * t / peak
    return ops.where(t < peak, rise, cosine(t - peak, total - peak, final_fraction=final_fraction))


def wsd(t: Tensor, total: float, *, decay_fraction: float, final_fraction: float) -> Tensor:
    """Stay at 1, then fall in a straight line: warm-up, stable, decay (Hu et al. 2024, arXiv:2404.06395).

    The line goes from 1 to `final_fraction` in the last `decay_fraction` of the time.
    """
    left = ops.minimum((total - t) / (decay_fraction * total), 1.0)
    return final_fraction + (1.0 - final_fraction) * left


CURVES: dict[str, Callable[..., Tensor]] = {
    "constant": constant,
    "exponential": exponential,
    "polynomial": polynomial,
    "cosine": cosine,
    "inverse-square-root": inverse_square_root,
    "one-cycle": one_cycle,
    "wsd": wsd,
}


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """The one owner of the learning rate: `highest` times warm-up times curve, at every step.

    Reduce-on-plateau has no formula of the step: there the curve is constant and the callback
    `recipes.training.callbacks.plateau.ReduceOnPlateau` lowers `plateau_factor`, which multiplies it.

    Args:
        schedule: The curve and its parameters.
        highest: Learning rate at a factor of 1.
        times: Epochs passed before each step, and after the last one (`BatchSizes.times`).
    """

    def __init__(self, schedule: Schedule, *, highest: float, times: Times) -> None:
        self.schedule = schedule
        self.highest = highest
        self.times = times.astype(np.float32)
        self.epochs = float(times[-1])
        self.plateau_factor = keras.Variable(1.0, trainable=False, name="plateau_factor")

    def __call__(self, step: Tensor) -> Tensor:
        """Return the rate of a step counted from 0, a float32 scalar."""
        last = len(self.times) - 1
        step = ops.clip(ops.cast(step, "int32"), 0, last)
        now, then = ops.take(self.times, step), ops.take(self.times, ops.minimum(step + 1, last))
        unit = self.times[1]
        factor = self._curve(ops.clip(now - self.schedule.warmup, 0.0, self._decay_time))
        if self.schedule.warmup:
            # The rate at the end of the step or epoch: the first one is not lost on a rate of 0.
            factor = factor * linear_warmup(then, length=max(self.schedule.warmup, unit))
        return self.highest * factor * self.plateau_factor

    @property
    def _decay_time(self) -> float:
        return self.epochs - self.schedule.warmup

    def _curve(self, t: Tensor) -> Tensor:
        if self.schedule.name == "plateau":
            return constant(t, self._decay_time)
        return CURVES[self.schedule.name](t, self._decay_time, **self.schedule.parameters())

    def get_config(self) -> dict[str, Any]:
        """Refuse: a run saves its settings, never its optimizer."""
        raise TypeError("A LearningRate is rebuilt from config.Schedule, not from a saved optimizer.")


class Sparsity:
    """How much is pruned at each step, and at which steps weights are chosen.

    `polynomial` is sparsity * (1 - (1 - t)^3) with t from 0 at `begin` to 1 at `end` (Zhu & Gupta 2017, "To
    prune, or not to prune", arXiv:1710.01878); `constant` is all of it from `begin` on.

    Args:
        settings: Sparsity, curve, steps.
        total_steps: Steps of the whole training.

    Raises:
        UserError: It would not be done by the end of the training.
    """

    def __init__(self, settings: Pruning, total_steps: int) -> None:
        self.settings = settings
        self.begin = settings.begin
        self.end, self.settle = settings.last_steps(total_steps)
        require(
            self.settle <= total_steps,
            f"pruning must end within the {total_steps} steps of the training",
            begin=self.begin,
            end=self.end,
            settle=self.settle,
        )

    def choice_at(self, step: int) -> int | None:
        """Return the last step until now at which weights were to be chosen; None before the first."""
        if step < self.begin:
            return None
        if step >= self.settle:
            return self.settle
        due = step - (step - self.begin) % self.settings.frequency
        return max(due, self.end) if step >= self.end else due

    def __call__(self, step: int) -> float:
        """Return the sparsity of a step."""
        if step < self.begin:
            return 0.0
        if self.settings.schedule != "polynomial":
            return self.settings.sparsity
        t = min((step - self.begin) / (self.end - self.begin), 1.0)
        return self.settings.sparsity * (1 - (1 - t) ** 3)
