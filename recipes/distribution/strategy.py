"""Data-parallel training on several devices or machines.

Every replica holds the whole model and computes the gradient of its part of the batch; their sum updates
all of them alike. On one machine the replicas are its GPUs, or parts of its CPU (MirroredStrategy). Where
TF_CONFIG names several processes, they are the devices of all (MultiWorkerMirroredStrategy): the chief alone
writes the run directory and sends its checkpoint to the others, so they share no disk.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recipes.config import (
    ImageRecipe,
    LostWorkerError,
    Recipe,
    UserError,
    require,
    to_dict,
)
from recipes.distribution.keras_fit_patch import check_version
from recipes.distribution.tf_config import Cluster, read_cluster
from recipes.models import Tensor
from recipes.models.saved import copy_without_optimizer
from recipes.runs.files import write_file
from recipes.runs.record import check_same


def join(name: str, recipe: Recipe) -> tf.distribute.Strategy:
    """Return the strategy of the devices that a recipe trains on, agreed with the other workers if there are any.

    Must precede everything else that TensorFlow computes: devices can't be divided later.

    Args:
        name: The recipe's name.
        recipe: Its settings; all workers must have the chief's.

    Raises:
        UserError: More devices than there are, a recipe that can't be divided, another version of Keras than the replicas
            need, or, in all workers, one whose settings are not the chief's.
    """
    cluster = read_cluster()
    if cluster is None:
        strategy = _local(recipe)
    else:
        strategy = _all_workers()
        _agree(strategy, cluster, {"recipe": name, **to_dict(recipe)})
        require(
            recipe.training.replicas is None,
            "training.replicas is for one machine: here TF_CONFIG names the workers",
            replicas=recipe.training.replicas,
        )
    check_divisible(recipe, strategy.num_replicas_in_sync)
    return strategy


def _local(recipe: Recipe) -> tf.distribute.Strategy:
    """Return the strategy of this machine's devices."""
    accelerators = [
        device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices("GPU")
    ]
    replicas = recipe.training.replicas
    wanted = replicas or _most_replicas(recipe, accelerators)
    if wanted == 1:
        return tf.distribute.get_strategy()
    require(
        not accelerators or wanted <= len(accelerators),
        f"training.replicas must be at most the number of GPUs, {len(accelerators)}",
        replicas=replicas,
    )
    check_version()
    if not accelerators:
        _divide_cpu(wanted)
    devices = accelerators or [f"CPU:{number}" for number in range(wanted)]
    return tf.distribute.MirroredStrategy(devices[:wanted])


def _most_replicas(recipe: Recipe, accelerators: Sequence[str]) -> int:
    """Return the largest number of GPUs that the recipe can be divided among, and print which are left out."""
    wanted, reason = max(1, len(accelerators)), ""
    while True:
        try:
            check_divisible(recipe, wanted)
        except UserError as error:
            wanted, reason = wanted - 1, reason or str(error)
        else:
            break
    if reason:
        left_out = ", ".join(accelerators[wanted:])
        print(f"{wanted} of {len(accelerators)} GPUs train, {left_out} left out: {reason}", flush=True)
    return wanted


def _divide_cpu(parts: int) -> None:
    [cpu] = tf.config.list_physical_devices("CPU")
    configured = tf.config.get_logical_device_configuration(cpu)
    if configured is not None and len(configured) >= parts:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * parts)
    except RuntimeError:
        raise UserError(
            "training.replicas divides the CPU before TensorFlow has computed anything: start a new process. "
            f"Received: replicas={parts}"
        ) from None


@functools.cache
def _all_workers() -> tf.distribute.Strategy:
    """Return the strategy of all processes of the cluster, which waits for them; a process has one."""
    check_version()
    return tf.distribute.MultiWorkerMirroredStrategy()


def check_divisible(recipe: Recipe, replicas: int) -> None:
    """Refuse settings with which several replicas would train another model than one.

    Raises:
        UserError: Names the setting.
    """
    if replicas == 1:
        return
    on = f"with {replicas} replicas"
    size = recipe.training.batch_size
    require(size % replicas == 0, f"{on}, training.batch_size must be a multiple of that", batch_size=size)
    require(recipe.batches.name == "fixed", f"{on}, batches must be fixed", batches=recipe.batches.name)
    require(
        recipe.optimizer.name != "gradient-descent",
        f"{on}, the batch must have a size: sgd with training.batch_size",
        optimizer=recipe.optimizer.name,
    )
    require(
        recipe.optimizer.clip_norm is None,
        f"{on}, each would clip its own part of the gradient: leave optimizer.clip_norm out",
        clip_norm=recipe.optimizer.clip_norm,
    )
    require(
        not recipe.pruning.sparsity,
        f"{on}, weights can't be pruned in training: training.replicas 1, or `prune` the finished run",
        sparsity=recipe.pruning.sparsity,
    )
    pretraining = recipe.pretraining.epochs if isinstance(recipe, ImageRecipe) else 0
    require(
        not pretraining,
        f"{on}, there is no pre-training: leave pretraining.epochs at 0",
        epochs=pretraining,
    )


def _agree(strategy: tf.distribute.Strategy, cluster: Cluster, settings: dict[str, Any]) -> None:
    """Compare the settings with the chief's; if one worker's differ, all workers stop.

    Raises:
        UserError: They differ here, or in another worker.
    """
    theirs = json.loads(from_chief(strategy, cluster, json.dumps(settings).encode()))
    differ: UserError | None = None
    try:
        check_same(theirs, settings, "All workers train with the chief's settings")
    except UserError as error:
        differ = error
    [differing] = _sum_over_workers(strategy, cluster, np.array([differ is not None], np.int32))
    if differ:
        raise differ
    require(
        not differing,
        "A worker has other settings than the chief. Its output says which",
        workers=int(differing),
    )


def from_chief(strategy: tf.distribute.Strategy, cluster: Cluster, content: bytes) -> bytes:
    """Return the chief's content to all workers; the others' content is ignored."""
    mine = np.frombuffer(content if cluster.is_chief else b"", np.uint8).astype(np.int32)
    [length] = _sum_over_workers(strategy, cluster, np.array([len(mine)], np.int32))
    if not length:
        return b""  # TensorFlow 2.21 crashes when it sums empty tensors
    padded = np.zeros(int(length), np.int32)
    padded[: len(mine)] = mine
    return _sum_over_workers(strategy, cluster, padded).astype(np.uint8).tobytes()


def _sum_over_workers(
    strategy: tf.distribute.Strategy, cluster: Cluster, values: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Return the sum of all workers' values (n,), each worker's counted once however many replicas it has."""
    try:
        total = _adder(strategy, strategy.num_replicas_in_sync // cluster.size)(values)
    except tf.errors.OpError as error:
        raise lost_worker(error, "before training") from error
    sums: npt.NDArray[np.int32] = strategy.experimental_local_results(total)[0].numpy()
    return sums


@functools.cache
def _adder(strategy: tf.distribute.Strategy, replicas_of_worker: int) -> Any:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def add(values: Tensor) -> Tensor:
        def of_replica() -> Tensor:
            replica = tf.distribute.get_replica_context()
            counts = replica.replica_id_in_sync_group % replicas_of_worker == 0
            return replica.all_reduce(tf.distribute.ReduceOp.SUM, values * tf.cast(counts, tf.int32))

        return strategy.run(of_replica)

    return add


def lost_worker(error: tf.errors.OpError, when: str) -> LostWorkerError:
    """Return the error of a collective operation that failed: of its long message, the line with the cause."""
    causes = [line for line in error.message.splitlines() if "aborted" in line]
    return LostWorkerError(f"another worker is gone, {when}: {causes[0] if causes else error.message}")


def share_checkpoint(strategy: tf.distribute.Strategy, path: Path) -> None:
    """Write the chief's checkpoint, if there is one, to each worker's own path."""
    cluster = read_cluster()
    if cluster is None:
        return
    content = from_chief(strategy, cluster, path.read_bytes() if cluster.is_chief and path.exists() else b"")
    if content and not cluster.is_chief:
        write_file(path, lambda file: file.write(content))


def divided(strategy: tf.distribute.Strategy, dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Return a dataset of which each replica reads a part of every batch, not a part of the files."""
    if strategy.num_replicas_in_sync == 1:
        return dataset
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def on_one_device(model: keras.Model) -> keras.Model:
    """Return a trained model that computes as its saved copy will: on one device.

    A model that is saved as its settings is loaded in float32.
    """
    alone = model.distribute_strategy.num_replicas_in_sync == 1
    return model if alone and model.compute_dtype == "float32" else copy_without_optimizer(model)
