"""Learning-rate schedules: pure functions of the step, for any Keras optimizer.

    model.compile(keras.optimizers.AdamW(OneCycle(0.004, total_steps=5000)), "mse")

`step` counts from 0, `total_steps` includes the warm-up. A model that is saved with its optimizer keeps its
schedule: import this module before `keras.models.load_model`.
"""

import abc
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from recipes.models import Tensor

serializable = keras.saving.register_keras_serializable(package="keras_recipes")


@dataclass(frozen=True)
class Schedule(LearningRateSchedule, abc.ABC):
    """Base class: a linear warm-up (Goyal et al. 2017, arXiv:1706.02677), then a curve.

    learning_rate * factor(max(step - warmup_steps, 0)) * min((step + 1) / warmup_steps, 1)

    Args:
        learning_rate: The highest rate, reached at the end of the warm-up.
        warmup_steps: Steps of the warm-up; 0 for none.
    """

    learning_rate: float
    warmup_steps: float = field(default=0.0, kw_only=True)

    def __call__(self, step: Tensor) -> Tensor:
        """Return the learning rate of a step, a float32 scalar."""
        step = ops.cast(step, "float32")
        warmup = ops.minimum((step + 1.0) / max(self.warmup_steps, 1.0), 1.0)
        return self.learning_rate * (self._factor(ops.maximum(step - self.warmup_steps, 0.0)) * warmup)

    @abc.abstractmethod
    def _factor(self, step: Tensor) -> Tensor:
        """Return the factor of the learning rate, in [0, 1], so many steps after the warm-up."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return asdict(self)


@serializable
@dataclass(frozen=True)
class Constant(Schedule):
    """Stay at the highest rate.

    >>> schedule = Constant(0.1, warmup_steps=4)
    >>> [round(float(schedule(step)), 3) for step in (0, 1, 3, 100)]
    [0.025, 0.05, 0.1, 0.1]
    """

    def _factor(self, step: Tensor) -> Tensor:
        return ops.ones_like(step)


@serializable
@dataclass(frozen=True, kw_only=True)
class Exponential(Schedule):
    """Multiply by `rate` every `decay_steps`: rate^(step / decay_steps).

    >>> schedule = Exponential(0.1, decay_steps=10, rate=0.5)
    >>> [round(float(schedule(step)), 3) for step in (0, 10, 20)]
    [0.1, 0.05, 0.025]

    Args:
        decay_steps: Steps in which the learning rate is multiplied by `rate` once.
        rate: The factor, in (0, 1].
    """

    decay_steps: float
    rate: float = 0.9

    def _factor(self, step: Tensor) -> Tensor:
        return ops.power(self.rate, step / self.decay_steps)


@serializable
@dataclass(frozen=True, kw_only=True)
class InverseSquareRoot(Schedule):
    """Fall as 1 / sqrt(1 + step / decay_steps) (as in Vaswani et al. 2017, arXiv:1706.03762).

    >>> schedule = InverseSquareRoot(0.1, decay_steps=10)
    >>> [round(float(schedule(step)), 3) for step in (0, 30, 990)]
    [0.1, 0.05, 0.01]

    Args:
        decay_steps: Steps after which the rate is 1 / sqrt(2) of the highest.
    """

    decay_steps: float

    def _factor(self, step: Tensor) -> Tensor:
        return ops.rsqrt(1.0 + step / self.decay_steps)


@dataclass(frozen=True, kw_only=True)
class ScheduleToEnd(Schedule):
    """Base class of schedules with an end, functions of t: 0 after the warm-up, 1 from total_steps on.

    Args:
        total_steps: Steps of the whole training, more than warmup_steps.

    Raises:
        ValueError: A warm-up as long as the training.
    """

    total_steps: float

    def __post_init__(self) -> None:
        if self.total_steps <= self.warmup_steps:
            raise ValueError(
                "total_steps must be more than warmup_steps. "
                f"Received: total_steps={self.total_steps}, warmup_steps={self.warmup_steps}"
            )

    def _factor(self, step: Tensor) -> Tensor:
        return self._at(ops.minimum(step / (self.total_steps - self.warmup_steps), 1.0))

    @abc.abstractmethod
    def _at(self, t: Tensor) -> Tensor:
        """Return the factor of the learning rate at a fraction t of the time after the warm-up."""


@serializable
@dataclass(frozen=True, kw_only=True)
class Polynomial(ScheduleToEnd):
    """Fall to 0 as (1 - t)^power.

    >>> schedule = Polynomial(0.1, total_steps=100, power=2.0)
    >>> [round(float(schedule(step)), 3) for step in (0, 50, 100)]
    [0.1, 0.025, 0.0]

    Args:
        power: 1 for a straight line.
    """

    power: float = 1.0

    def _at(self, t: Tensor) -> Tensor:
        return ops.power(1.0 - t, self.power)


@serializable
@dataclass(frozen=True, kw_only=True)
class Cosine(ScheduleToEnd):
    """Fall along half a cosine: final + (1 - final) (1 + cos(pi t)) / 2 (Loshchilov & Hutter 2017, arXiv:1608.03983).

    >>> schedule = Cosine(0.1, total_steps=100)
    >>> [round(float(schedule(step)), 3) for step in (0, 50, 100)]
    [0.1, 0.05, 0.0]

    Args:
        final_fraction: Final rate as a fraction of the highest, in [0, 1].
    """

    final_fraction: float = 0.0

    def _at(self, t: Tensor) -> Tensor:
        return _half_cosine(t, self.final_fraction)


def _half_cosine(t: Tensor, final: float) -> Tensor:
    return final + (1.0 - final) * 0.5 * (1.0 + ops.cos(math.pi * t))


@serializable
@dataclass(frozen=True, kw_only=True)
class OneCycle(ScheduleToEnd):
    """Rise in a straight line, then fall along half a cosine (Smith & Topin 2018, arXiv:1708.07120).

    >>> schedule = OneCycle(0.1, total_steps=100, rise_fraction=0.2)
    >>> [round(float(schedule(step)), 3) for step in (0, 10, 20, 60, 100)]
    [0.004, 0.052, 0.1, 0.05, 0.0]

    Args:
        rise_fraction: Fraction of the time in which the rate rises, in (0, 1).
        initial_fraction: Initial rate as a fraction of the highest, in (0, 1].
        final_fraction: Final rate as a fraction of the highest, in [0, 1].
    """

    rise_fraction: float = 0.2
    initial_fraction: float = 0.04
    final_fraction: float = 0.0

    def _at(self, t: Tensor) -> Tensor:
        peak = self.rise_fraction
        rise = self.initial_fraction + (1.0 - self.initial_fraction) * t / peak
        return ops.where(t < peak, rise, _half_cosine((t - peak) / (1.0 - peak), self.final_fraction))


@serializable
@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(ScheduleToEnd):
    """Stay at the highest rate, then fall in a straight line (Hu et al. 2024, arXiv:2404.06395).

    >>> schedule = WarmupStableDecay(0.1, total_steps=100, decay_fraction=0.2, warmup_steps=10)
    >>> [round(float(schedule(step)), 3) for step in (0, 9, 82, 91, 100)]
    [0.01, 0.1, 0.1, 0.05, 0.0]

    Args:
        decay_fraction: Fraction of the time, at its end, in which the rate falls, in (0, 1].
        final_fraction: Final rate as a fraction of the highest, in [0, 1].
    """

    decay_fraction: float = 0.2
    final_fraction: float = 0.0

    def _at(self, t: Tensor) -> Tensor:
        left = ops.minimum((1.0 - t) / self.decay_fraction, 1.0)
        return self.final_fraction + (1.0 - self.final_fraction) * left


@serializable
class Plateau(LearningRateSchedule):
    """Stay at a rate, after the warm-up, that the callback `ReduceOnPlateau` lowers.

    >>> schedule = Plateau(0.1, warmup_steps=2)
    >>> _ = schedule.rate.assign(0.05)
    >>> [round(float(schedule(step)), 3) for step in (0, 1, 100)]
    [0.025, 0.05, 0.05]

    Args:
        learning_rate: The first rate.
        warmup_steps: Steps of the linear warm-up; 0 for none.

    Attributes:
        rate: The rate after the warm-up, a variable.
    """

    def __init__(self, learning_rate: float, *, warmup_steps: float = 0.0) -> None:
        self.warmup_steps = warmup_steps
        self.rate = keras.Variable(learning_rate, trainable=False, name="plateau_rate")

    def __call__(self, step: Tensor) -> Tensor:
        """Return the learning rate of a step, a float32 scalar."""
        return self.rate * Constant(1.0, warmup_steps=self.warmup_steps)(step)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor that give a schedule at this one's rate."""
        return {"learning_rate": float(ops.convert_to_numpy(self.rate)), "warmup_steps": self.warmup_steps}
