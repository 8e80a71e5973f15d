"""Settings of random changes to the training images."""

import dataclasses
from typing import Literal

from recipes.config.errors import require
from recipes.config.parts import whole_part


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes to the training images, each drawn evenly from its range; 0 is off."""

    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    """Mirror half of the images, left to right, upside down, or each of the two. Digits change their
    meaning."""
    rotate: float = 0.0
    """Largest turn in degrees, either way."""
    scale: float = 0.0
    """Largest change of width and height as a part of them, each drawn by itself; in [0, 1)."""
    shift: float = 0.0
    """Largest shift in pixels, each way."""
    crop: float = 0.0
    """Largest part of width and height that is cut away before what is left is enlarged; in [0, 1)."""
    shear: float = 0.0
    """Largest shear in degrees, either way; below 90."""
    elastic: float = 0.0
    """Standard deviation in pixels of each pixel's own shift, smooth over its neighbours (Simard et al.
    2003, "Best practices for convolutional neural networks")."""
    elastic_smoothness: float = 4.0
    """Standard deviation in pixels of the Gaussian that makes these shifts smooth, above 0."""
    erase: float = 0.0
    """Largest part of an image's area that a rectangle blackens; in [0, 1) (Zhong et al. 2017,
    arXiv:1708.04896)."""
    mix_up: float = 0.0
    """Alpha of the Beta distribution of the weights with which two images and their labels are mixed
    (Zhang et al. 2018, arXiv:1710.09412)."""
    cut_mix: float = 0.0
    """Alpha of the Beta distribution of the area that is left of an image when a rectangle of another
    is put into it, and labels are mixed by area (Yun et al. 2019, arXiv:1905.04899). With mix_up, half
    of the images get one, half the other."""
    end_fraction: float = 1.0
    """Part of the training, by epochs, after which images stay as they are, in [0, 1]. Images that were
    moved are smoother than those the model will see; a network that ends on those knows them better
    (He et al. 2019, arXiv:1909.09148)."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            require(
                isinstance(value, str) or value >= 0,
                f"augmentation.{field.name} must be at least 0",
                **{field.name: value},
            )
        require(
            self.end_fraction <= 1,
            "augmentation.end_fraction must be in [0, 1]",
            end_fraction=self.end_fraction,
        )
        for name in ("scale", "crop", "erase"):
            value = getattr(self, name)
            require(value < 1, f"augmentation.{name} must be below 1", **{name: value})
        require(self.shear < 90, "augmentation.shear must be below 90 degrees", shear=self.shear)
        require(
            self.elastic_smoothness > 0,
            "augmentation.elastic_smoothness must be above 0",
            elastic_smoothness=self.elastic_smoothness,
        )

    def end(self, epochs: int) -> int:
        """Return how many of a training's epochs come before images stay as they are."""
        return whole_part(self.end_fraction, epochs)
