"""Save the whole state of a training after each epoch, so that a kill costs at most the current epoch."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from recipes.runs.files import write_file
from recipes.training.callbacks.stateful import STATEFUL, StatefulCallback, check_built

Arrays = dict[str, npt.NDArray[Any]]


class Checkpoint(keras.callbacks.Callback):
    """Save model, optimizer and the state of the stateful callbacks; a fit with the same path resumes.

    Must be the last callback: it saves the others' state after the epoch, and restores it after their
    `on_train_begin`. Keras's BackupAndRestore saves no callback's state. A resumed training has the same result, to
    the bit, if the order of the data depends on the epoch alone.

    >>> checkpoint = Checkpoint("state.npz")
    >>> history = model.fit(x, y, epochs=2, callbacks=[KeepBest("loss"), checkpoint], verbose=0)
    >>> checkpoint.finished_epochs()
    2
    >>> resumed = model.fit(x, y, epochs=5, callbacks=[KeepBest("loss"), Checkpoint("state.npz")], verbose=0)
    >>> resumed.epoch
    [2, 3, 4]

    Args:
        path: The checkpoint, an .npz file that is replaced as a whole. Delete it to train from scratch.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self.path = Path(path)

    def finished_epochs(self) -> int:
        """Return how many epochs the checkpoint holds, 0 without a checkpoint."""
        if not self.path.exists():
            return 0
        with np.load(self.path) as file:
            return int(file["epochs"])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save."""
        arrays: Arrays = {"epochs": np.array(epoch + 1), "stopped": np.array(bool(self.model.stop_training))}
        for name, variables in self._variables().items():
            arrays |= {
                f"{name}/{number}": keras.ops.convert_to_numpy(variable)
                for number, variable in enumerate(variables)
            }
        memory = {
            name: _take_arrays(callback.state(), name, arrays) for name, callback in self._stateful().items()
        }
        arrays["callbacks"] = np.array(json.dumps(memory))
        write_file(self.path, lambda file: np.savez(file, allow_pickle=False, **arrays))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Restore the checkpoint, if there is one, and start the fit after its last epoch.

        Raises:
            ValueError: The model is not built, or the checkpoint is that of other callbacks.
        """
        check_built(self, self.model)
        if not self.path.exists():
            return
        with np.load(self.path) as file:
            for name, variables in self._variables().items():
                for number, variable in enumerate(variables):
                    variable.assign(file[f"{name}/{number}"])
            memory, stateful = json.loads(str(file["callbacks"])), self._stateful()
            if set(memory) != set(stateful):
                raise ValueError(
                    f"{self.path} is the checkpoint of a fit with the callbacks {', '.join(sorted(memory))}. "
                    f"Received: {', '.join(sorted(stateful))}"
                )
            for name, callback in stateful.items():
                callback.restore(_put_arrays(memory[name], file))
            # As Keras's BackupAndRestore does; callbacks have no public way to skip epochs.
            self.model._initial_epoch = self.params["epochs"] if file["stopped"] else int(file["epochs"])

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Let later fits of the model begin at their first epoch."""
        self.model._initial_epoch = None

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Let later fits of the model begin at their first epoch, even if this one had none left."""
        self.model._initial_epoch = None

    def _stateful(self) -> dict[str, StatefulCallback]:
        """Return the stateful callbacks of the fit, by class; a second one of a class gets a number."""
        found: dict[str, StatefulCallback] = {}
        for callback in self.params.get(STATEFUL, []):
            name = type(callback).__name__
            found[f"{name}-{len(found)}" if name in found else name] = callback
        return found

    def _variables(self) -> dict[str, list[Any]]:
        metrics = {id(variable) for variable in self.model.metrics_variables}  # each epoch resets them
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        return {
            "model": [variable for variable in self.model.variables if id(variable) not in metrics],
            "optimizer": optimizer.variables,
        }


def _take_arrays(value: Any, path: str, arrays: Arrays) -> Any:
    """Return a state whose arrays are moved to `arrays` and replaced by their keys."""
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
