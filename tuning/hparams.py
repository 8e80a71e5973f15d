"""Trials for TensorBoard's HParams plugin: `tensorboard --logdir searches/RECIPE/NAME`."""

from pathlib import Path

import tensorflow as tf
from tensorboard.plugins.hparams import api

from tuning.plan import Plan, Trial


def write_hparams(folder: Path, plan: Plan, trial: Trial) -> None:
    """Write what a trial's settings were and what came of them.

    Args:
        folder: Where the log goes.
        plan: What is searched.
        trial: An ended trial; one without a value leaves its settings only.
    """
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        api.hparams(trial.values, trial_id=f"trial {trial.number}")
        if trial.value is not None:
            tf.summary.scalar(plan.objective, trial.value, step=trial.epochs)
    writer.close()
