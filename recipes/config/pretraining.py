"""Settings of learning from images without their labels."""

import dataclasses

from recipes.config.augmentation import Augmentation
from recipes.config.errors import require, require_at_least_one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Before training, the hidden layers learn to restore spoilt images: a denoising autoencoder
    (Vincent et al. 2010, "Stacked denoising autoencoders"). All training images take part, with labels
    or without.
    """

    epochs: int = 0
    """Passes over all training images, at least 0; 0 is off."""
    noise: float = 0.5
    """Part of the pixels that are blackened, in [0, 1)."""
    moves: Augmentation = Augmentation()
    """Changes to the images that are to be taken back: a network that can do that knows a digit wherever
    it stands. No mixing, and to the end."""
    learning_rate: float = 0.001
    """Highest learning rate of Adam, which falls along half a cosine."""
    batch_size: int = 128
    """Images a step, at least 1."""

    def __post_init__(self) -> None:
        require(self.epochs >= 0, "pretraining.epochs must be at least 0", epochs=self.epochs)
        require(0 <= self.noise < 1, "pretraining.noise must be in [0, 1)", noise=self.noise)
        require(
            self.learning_rate > 0,
            "pretraining.learning_rate must be above 0",
            learning_rate=self.learning_rate,
        )
        require_at_least_one("pretraining", self, "batch_size")
        require(
            not (self.moves.mix_up or self.moves.cut_mix),
            "pretraining.moves: an image that is mixed with another can't be restored",
            mix_up=self.moves.mix_up,
            cut_mix=self.moves.cut_mix,
        )
        require(
            self.moves.end_fraction == 1,
            "pretraining.moves.end_fraction must be 1: images that are not moved teach nothing here",
            end_fraction=self.moves.end_fraction,
        )
