"""Every setting there is, as frozen dataclasses; standard library only.

The command line mirrors them: field `batch_size` of `Training` is the flag `--training.batch-size`.
A run's `config.json` holds the same tree.
"""

from recipes.config.distillation import Distillation
from recipes.config.errors import DivergedError, UserError, nearest, require
from recipes.config.image import Augmentation, ImageData, ImageModel, ImageRecipe
from recipes.config.optimization import EarlyStopping, Optimizer, Schedule, Training, better_when_low
from recipes.config.pruning import Pruning, RunPruning
from recipes.config.recipe import Recipe
from recipes.config.regularization import Regularization
from recipes.config.sequences import EncoderDecoderModel, ReversalData, SequenceRecipe
from recipes.config.text import (
    RecurrentModel,
    RecurrentRecipe,
    Sampling,
    StreamedTextData,
    TextData,
    TextRecipe,
    TextTraining,
    TransformerModel,
    TransformerRecipe,
)
from recipes.config.tree import flatten, from_dict, to_dict

__all__ = [
    "Augmentation",
    "Distillation",
    "DivergedError",
    "EarlyStopping",
    "EncoderDecoderModel",
    "ImageData",
    "ImageModel",
    "ImageRecipe",
    "Optimizer",
    "Pruning",
    "Recipe",
    "RecurrentModel",
    "RecurrentRecipe",
    "Regularization",
    "ReversalData",
    "RunPruning",
    "Sampling",
    "Schedule",
    "SequenceRecipe",
    "StreamedTextData",
    "TextData",
    "TextRecipe",
    "TextTraining",
    "Training",
    "TransformerModel",
    "TransformerRecipe",
    "UserError",
    "better_when_low",
    "flatten",
    "from_dict",
    "nearest",
    "require",
    "to_dict",
]
