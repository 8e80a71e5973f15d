"""Settings of learning from another run's model."""

import dataclasses

from recipes.config.errors import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation:
    """Learning from what a trained model makes of each example, besides its label.

    Loss: (1 - weight) cross-entropy with the label + weight temperature² KL(teacher ‖ model), both
    softened by the temperature (Hinton et al. 2015, arXiv:1503.02531). Of a regression: (1 - weight) squared
    error to the target + weight squared error to the teacher's prediction.
    """

    teacher: str | None = None
    """Finished run whose model is learnt from; it must have the same outputs (None: labels alone)."""
    weight: float = 0.5
    """Part of the loss that comes from the teacher, in (0, 1]."""
    temperature: float = 2.0
    """What the logits of both are divided by, above 0: more shows more of what the teacher thinks
    of the wrong classes. A regression has no logits and takes no other than this."""

    def __post_init__(self) -> None:
        require(0 < self.weight <= 1, "distillation.weight must be in (0, 1]", weight=self.weight)
        require(
            self.temperature > 0, "distillation.temperature must be above 0", temperature=self.temperature
        )
