"""Write all that a training is after each epoch, so that a kill costs at most the epoch under way."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from recipes.runs.files import write_file
from recipes.training.callbacks.stateful import Stateful

Arrays = dict[str, npt.NDArray[Any]]


class Checkpoint(keras.callbacks.Callback):
    """Save model, optimizer and the memory of the other callbacks; take them back when training begins.

    Must stand last among the callbacks: what it saves is what they made of the epoch, and what it
    takes back comes after their own start. Keras's BackupAndRestore keeps neither early stopping's
    memory nor any other callback's.

    Args:
        path: The checkpoint file, one .npz written beside and renamed.
        callbacks: The other callbacks; those that are `Stateful` are kept, by class name.
    """

    def __init__(self, path: Path, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        super().__init__()
        self.path = path
        self.stateful = {
            type(callback).__name__: callback for callback in callbacks if isinstance(callback, Stateful)
        }

    def finished_epochs(self) -> int:
        """Return how many epochs the checkpoint holds, 0 where there is none."""
        if not self.path.exists():
            return 0
        with np.load(self.path) as file:
            return int(file["epochs"])

    def stopped(self) -> bool:
        """Tell whether the last epoch it holds ended the training early."""
        if not self.path.exists():
            return False
        with np.load(self.path) as file:
            return bool(file["stopped"])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save."""
        arrays: Arrays = {"epochs": np.array(epoch + 1), "stopped": np.array(bool(self.model.stop_training))}
        for name, variables in self._variables().items():
            arrays |= {
                f"{name}/{number}": keras.ops.convert_to_numpy(variable)
                for number, variable in enumerate(variables)
            }
        memory = {
            name: _take_arrays(callback.state(), name, arrays) for name, callback in self.stateful.items()
        }
        arrays["callbacks"] = np.array(json.dumps(memory))
        write_file(self.path, lambda file: np.savez(file, allow_pickle=False, **arrays))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Take a checkpoint back where there is one."""
        if not self.path.exists():
            return
        with np.load(self.path) as file:
            for name, variables in self._variables().items():
                for number, variable in enumerate(variables):
                    variable.assign(file[f"{name}/{number}"])
            memory = json.loads(str(file["callbacks"]))
            for name, callback in self.stateful.items():
                callback.restore(_put_arrays(memory[name], file))

    def _variables(self) -> dict[str, list[Any]]:
        metrics = {id(variable) for variable in self.model.metrics_variables}  # they start anew each epoch
        return {
            "model": [variable for variable in self.model.variables if id(variable) not in metrics],
            "optimizer": self.model.optimizer.variables,
        }


def _take_arrays(value: Any, path: str, arrays: Arrays) -> Any:
    """Return a state with its arrays moved to `arrays` and their keys left in their place."""
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {"array": path}
    if isinstance(value, dict):
        return {name: _take_arrays(inner, f"{path}/{name}", arrays) for name, inner in value.items()}
    if isinstance(value, list):
        return [_take_arrays(inner, f"{path}/{number}", arrays) for number, inner in enumerate(value)]
    return value


def _put_arrays(value: Any, arrays: Any) -> Any:
    """Undo `_take_arrays`."""
    if isinstance(value, dict):
        if set(value) == {"array"}:
            return arrays[value["array"]]
        return {name: _put_arrays(inner, arrays) for name, inner in value.items()}
    return [_put_arrays(inner, arrays) for inner in value] if isinstance(value, list) else value
