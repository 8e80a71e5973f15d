"""Sequence to sequence: an encoder-decoder Transformer learns to reverse sequences, where the right answer is known.

python -m recipes train seq2seq-reverse
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from recipes.config import SequenceRecipe
from recipes.data.batch_sizes import batch_sizes
from recipes.data.batches import TrainingBatches
from recipes.data.sequences import (
    END,
    FIRST_SYMBOL,
    START,
    Ids,
    Reversals,
    evaluation_reversals,
    held_out_reversals,
    training_reversals,
)
from recipes.models.encoder_decoder import EncoderDecoder
from recipes.report.page import Page, Table
from recipes.runs.directory import Run
from recipes.task import Data, Part, Scores, Task

PART_SEEDS: Mapping[Part, int] = {"validation": 0, "test": 1}
SPEED_BATCH_SIZE = 64
EXAMPLES_SHOWN = 8


class SequenceToSequence(Task[SequenceRecipe]):
    """Predict each symbol of the target: (source, previous symbols) to logits (batch, length, symbols)."""

    recipe_class = SequenceRecipe
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
    xla_is_faster = True
    served = False

    def load(self) -> None:
        """Name the data: sequences are drawn from seeds."""
        self.data = Data("reversal", self.recipe.data.source, "drawn from the seeds")

    def describe(self) -> str:
        """Describe the sequences."""
        return f"sequences of up to {self.recipe.data.longest} symbols"

    def batches(self) -> TrainingBatches:
        """Return batches of new sequences."""
        sizes = batch_sizes(self.recipe, self.recipe.training.windows_per_epoch)
        return training_reversals(self.recipe.data, sizes, self.recipe.training.seed)

    def validation(self) -> Any:
        """Return the validation sequences."""
        return evaluation_reversals(self._part("validation"))

    def _part(self, part: Part) -> Reversals:
        return held_out_reversals(self.recipe.data, PART_SEEDS[part])

    def build(self) -> keras.Model:
        """Build an encoder that reads the sequence and a decoder that writes its reversal."""
        data = self.recipe.data
        return EncoderDecoder(self.recipe.model, FIRST_SYMBOL + data.symbols, data.longest, data.longest + 1)

    def compile(self, model: keras.Model, **options: Any) -> None:
        """Compile with the cross-entropy of the symbols that are not padding."""
        model.compile(loss=self.loss, weighted_metrics=["accuracy"], **options)

    def score(self, model: keras.Model, part: Part) -> Scores:
        """Return loss in nats and accuracy of each symbol given the right ones before it, and exact_match.

        exact_match is the share of the sequences that greedy decoding reverses without an error.
        """
        reversals = self._part(part)
        logits = model.predict((reversals.source, reversals.previous), verbose=0).astype(np.float64)
        shifted = logits - logits.max(axis=-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        losses = -np.take_along_axis(logs, reversals.target[..., np.newaxis], axis=-1)[..., 0]
        counts = reversals.weights > 0
        written = decode_greedily(model, reversals.source)
        figures = {
            "loss": float(losses[counts].mean()),
            "accuracy": float((logits.argmax(axis=-1) == reversals.target)[counts].mean()),
            "exact_match": float(((written == reversals.target) | ~counts).all(axis=1).mean()),
        }
        metrics = {f"{part}_{name}": round(value, 6) for name, value in figures.items()}
        return Scores(metrics, {"sequences": len(written)}, (reversals.source, written))

    def page(self, run: Run, metrics: Mapping[str, Any], test: Scores) -> Page:
        """Show some sequences with the model's output."""
        rows = [
            {"sequence": _spell(source), "output": _spell(written)}
            for source, written in zip(*(part[:EXAMPLES_SHOWN] for part in test.outputs), strict=True)
        ]
        return Page(
            figures={
                "reversed without an error": f"{100 * metrics['test_exact_match']:.1f} %",
                "test accuracy": f"{100 * metrics['test_accuracy']:.2f} %",
                "test loss": f"{metrics['test_loss']:.4f} nats",
            },
            tables=[Table("Sequences and the model's output", rows)],
        )

    def examples(self) -> tuple[Ids, Ids]:
        """Return validation sequences, (64, longest) and (64, longest + 1)."""
        reversals = self._part("validation")
        return reversals.source[:SPEED_BATCH_SIZE], reversals.previous[:SPEED_BATCH_SIZE]

    def outputs(self, run: Run | None = None) -> int:
        """Return the number of symbols."""
        return self.recipe.data.symbols if run is None else int(run.config["data"]["symbols"])


def decode_greedily(model: keras.Model, source: Ids) -> npt.NDArray[np.int32]:
    """Return the likeliest symbol at each position, given those before it: (n, target_length)."""
    length = model.target_length
    written = np.zeros((len(source), length + 1), np.int32)
    written[:, 0] = START
    for position in range(length):
        logits = model.predict((source, written[:, :-1]), verbose=0)
        written[:, position + 1] = logits[:, position].argmax(axis=-1)
    return written[:, 1:]


def _spell(ids: Ids) -> str:
    """Return symbols as numbers, up to the end."""
    end = np.flatnonzero(ids < FIRST_SYMBOL)
    symbols = ids[: end[0]] if len(end) else ids
    stop = "" if not len(end) or ids[end[0]] != END else " ."
    return " ".join(str(symbol - FIRST_SYMBOL) for symbol in symbols) + stop
