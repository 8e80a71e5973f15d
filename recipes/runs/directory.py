"""The run directory on disk: what tuning and serving read, and what a resume continues from.

runs/RECIPE/NAME/
config.json         recipe and settings, the values that were used: `train --settings` takes it
environment.json    versions, git revision, seed, data; made_from of a pruned or quantised run
history.csv         a row for each epoch
model.keras         the best epoch's weights, without the optimizer
vocabulary.json     text: the tokenizer's vocabulary
metrics.json        written last: a run that has it is finished
report.html         with plots/*.png inside
tensorboard/        the curves as TensorBoard logs
checkpoint/         until the run is finished: what a resume continues from
steps/              of a pruned run: a run for each step; trade_off.csv has a row for each
status.json         only after an interruption or a failure: what happened

`runs/RECIPE/latest` points at the recipe's training run that finished last.
"""

import csv
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.command_line import shell_command
from recipes.config import UserError
from recipes.runs.files import point_latest, write_json
from recipes.runs.recipe_lookup import folder_of

RUNS = Path("runs")


@dataclass(frozen=True)
class Run:
    """A run directory, by its path."""

    path: Path

    @property
    def model_path(self) -> Path:
        """The saved model."""
        return self.path / "model.keras"

    @property
    def history_path(self) -> Path:
        """The table of epochs."""
        return self.path / "history.csv"

    @property
    def vocabulary_path(self) -> Path:
        """The vocabulary of a language model."""
        return self.path / "vocabulary.json"

    @property
    def plots(self) -> Path:
        """The folder of plots."""
        return self.path / "plots"

    @property
    def checkpoint(self) -> Path:
        """The training state that a resume continues from."""
        return self.path / "checkpoint" / "state.npz"

    @property
    def started(self) -> bool:
        """Whether there is a run: `config.json` is written when everything before the training is done."""
        return (self.path / "config.json").exists()

    @property
    def finished(self) -> bool:
        """Whether the run is finished: `metrics.json` is written last."""
        return (self.path / "metrics.json").exists()

    @property
    def config(self) -> dict[str, Any]:
        """Recipe and settings, as nested dicts."""
        return self._read("config.json")

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, git revision, seed and data."""
        return self._read("environment.json")

    @property
    def metrics(self) -> dict[str, Any]:
        """The run's results.

        Raises:
            UserError: The run is not finished.
        """
        if self.finished:
            return self._read("metrics.json")
        raise UserError(f"{self.path} is not a finished run: it has no metrics.json. {self.advice}")

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of `history.csv`."""
        with self.history_path.open() as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]

    @property
    def status(self) -> str:
        """How an unfinished run ended: interrupted, failed, or "" where that was not recorded."""
        if not (self.path / "status.json").exists():
            return ""
        return str(self._read("status.json").get("status", ""))

    @property
    def made_from(self) -> dict[str, Any]:
        """The source run of a pruned or quantised run, and the settings of it; empty for a training run."""
        made_from: dict[str, Any] = self.environment.get("made_from", {})
        return made_from

    @property
    def owner(self) -> Path | None:
        """The pruned run that this is a step of, the run that this pre-trains, or the search of this trial."""
        path, record = self.path.absolute(), "config.json"
        if path.parent.parent.name == "trials":
            owner, record = path.parent.parent.parent, "search.json"
        elif path.parent.name == "steps":
            owner = path.parent.parent
        elif path.name == "pretraining":
            owner = path.parent
        else:
            return None
        return owner if (owner / record).exists() else None

    @property
    def advice(self) -> str:
        """How an unfinished run is resumed or finished, as commands."""
        recipe, made_from, owner = self.config.get("recipe"), self.made_from, self.owner
        if owner is not None:
            return f"It is a part of {owner}, which is resumed instead"
        if "structure" in made_from:
            again = shell_command("recipes", "prune", made_from["run"], "--resume", "--run-dir", self.path)
            return f"Resume: {again}"
        if made_from:
            return f"Again: {shell_command('recipes', 'quantize', made_from['run'])}"
        resume = shell_command("recipes", "train", recipe, "--resume", "--run-dir", self.path)
        if not self.checkpoint.exists():
            return f"Resume: {resume}"
        return (
            f"Resume: {resume}\nScore its best epoch so far: {shell_command('recipes', 'finish', self.path)}"
        )

    def write_status(self, status: str, reason: str) -> None:
        """Record that the run ended early: interrupted, or failed."""
        write_json(self.path / "status.json", {"status": status, "reason": reason})

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write `metrics.json`, which makes the run finished, then remove what only a resume needs.

        A training run in `runs/RECIPE` becomes `latest` there.
        """
        write_json(self.path / "metrics.json", metrics)
        folder = RUNS / folder_of(str(self.config["recipe"]))
        if self.path.absolute().parent == folder.absolute() and not self.made_from:
            point_latest(self.path)
        shutil.rmtree(self.checkpoint.parent, ignore_errors=True)
        (self.path / "status.json").unlink(missing_ok=True)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{self.path} is not a run directory: it has no {name}") from None
        except ValueError as error:
            raise UserError(f"{self.path / name} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise UserError(f"{self.path / name} must hold a JSON object. Received: {type(content).__name__}")
        return content
