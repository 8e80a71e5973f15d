"""Every setting there is, as frozen dataclasses; standard library only.

The command line mirrors them: field `batch_size` of `Training` is the flag `--training.batch-size`.
A run's `config.json` holds the same tree.
"""

from recipes.config.errors import (
    DivergedError,
    LostWorkerError,
    UserError,
    nearest,
    require,
    require_seed,
)
from recipes.config.fields import flatten, from_dict, to_dict, whole_part, with_settings
from recipes.config.image import (
    Augmentation,
    ImageData,
    ImageModel,
    ImageRecipe,
    LossName,
    Pretraining,
)
from recipes.config.optimization import (
    BatchSchedule,
    Optimizer,
    OptimizerName,
    Regularization,
    Schedule,
    ScheduleName,
)
from recipes.config.recipe import (
    Distillation,
    EarlyStopping,
    Pruning,
    Recipe,
    RunPruning,
    Training,
    better_when_low,
)
from recipes.config.table import TableData, TableModel, TableRecipe
from recipes.config.text import (
    EncoderDecoderModel,
    RecurrentModel,
    RecurrentRecipe,
    ReversalData,
    Sampling,
    SequenceRecipe,
    TextData,
    TextRecipe,
    TextTraining,
    TransformerModel,
    TransformerRecipe,
)

__all__ = [
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
    "OptimizerName",
    "Pretraining",
    "Pruning",
    "Recipe",
    "RecurrentModel",
    "RecurrentRecipe",
    "Regularization",
    "ReversalData",
    "RunPruning",
    "Sampling",
    "Schedule",
    "ScheduleName",
    "SequenceRecipe",
    "TableData",
    "TableModel",
    "TableRecipe",
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
    "with_settings",
]
