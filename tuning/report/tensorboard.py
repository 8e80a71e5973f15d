"""Trials for TensorBoard's HParams plugin: `tensorboard --logdir searches/RECIPE/NAME`."""

from pathlib import Path

import tensorflow as tf
from tensorboard.plugins.hparams import api

from tuning.plan import Plan
from tuning.trial import Trial


def write_hparams(folder: Path, plan: Plan, trial: Trial) -> None:
    """Write the settings and the value of a trial.

    Args:
        folder: Folder of the log.
        plan: The settings of the search.
        trial: An ended trial; without a value, only its settings are written.
    """
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        api.hparams(trial.values, trial_id=f"trial {trial.number}")
        if trial.value is not None:
            tf.summary.scalar(plan.objective, trial.value, step=trial.epochs)
    writer.close()
