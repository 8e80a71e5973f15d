"""Every setting there is, as frozen dataclasses; standard library only.

The command line mirrors them: field `batch_size` of `Training` is the flag `--training.batch-size`.
A run's `config.json` holds the same tree.
"""

from recipes.config.augmentation import Augmentation
from recipes.config.batch_schedule import BatchSchedule
from recipes.config.distillation import Distillation
from recipes.config.errors import (
    DivergedError,
    LostWorkerError,
    UserError,
    nearest,
    require,
    require_seed,
)
from recipes.config.image import IMAGE_SHAPE, ImageData, ImageModel, ImageRecipe, LossName
from recipes.config.optimizer import Optimizer
from recipes.config.parts import whole_part
from recipes.config.pretraining import Pretraining
from recipes.config.pruning import Pruning, RunPruning
from recipes.config.recipe import Recipe
from recipes.config.regression import RegressionData, RegressionModel, RegressionRecipe
from recipes.config.regularization import Regularization
from recipes.config.schedule import Schedule
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
from recipes.config.training import EarlyStopping, Training, better_when_low
from recipes.config.tree import flatten, from_dict, to_dict

__all__ = [
    "IMAGE_SHAPE",
    "Augmentation",
    "BatchSchedule",
    "Distillation",
    "DivergedError",
    "EarlyStopping",
    "EncoderDecoderModel",
    "ImageData",
    "ImageModel",
    "ImageRecipe",
    "LossName",
    "LostWorkerError",
    "Optimizer",
    "Pretraining",
    "Pruning",
    "Recipe",
    "RecurrentModel",
    "RecurrentRecipe",
    "RegressionData",
    "RegressionModel",
    "RegressionRecipe",
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
    "require_seed",
    "to_dict",
    "whole_part",
]
