"""Language modelling: predict the next token of tiny Shakespeare, or of your own text.

    make train-lm
    python -m recipes train lm-lstm --data.source my_book.txt

`recipes/catalog.py` lists the result of each recipe; `recipes/generation/` generates text with a model.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from recipes.config import RecurrentRecipe, Sampling, TextRecipe, to_dict
from recipes.data.batch_sizes import batch_sizes
from recipes.data.batches import TrainingBatches
from recipes.data.tokenizers import decode, write_vocabulary
from recipes.data.tokens import TextPart, load_text
from recipes.data.windows import evaluation_windows, training_windows
from recipes.generation.decoding import LanguageModel
from recipes.generation.text_generator import TextGenerator, load
from recipes.models.recurrent import RecurrentLanguageModel
from recipes.models.saved import copy_without_optimizer
from recipes.models.transformer import TransformerLanguageModel
from recipes.report.page import Page, Text
from recipes.runs.directory import Run
from recipes.runs.opening import finished_run
from recipes.runs.record import check_same
from recipes.task import Data, Part, Scores, Task
from recipes.training.callbacks import Sample, TextMetrics
from recipes.training.callbacks.text_metrics import bits_per_character, perplexity

SAMPLE_TOKENS, SAMPLE_PROMPT_TOKENS = 400, 16
SPEED_BATCH_SIZE = 16
SAMPLING = Sampling(temperature=0.8)


class LanguageModelling(Task[TextRecipe]):
    """Predict the next token: int32 ids (batch, time) to logits (batch, time, vocabulary)."""

    recipe_class = TextRecipe
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plotted_metric = "perplexity"
    start: LanguageModel | None = None
    sample: Sample | None = None

    def load(self) -> None:
        """Load and tokenize the text, with the vocabulary of the run that training starts from, if any."""
        tokenizer = None
        if self.recipe.init_from:
            run = finished_run(Path(self.recipe.init_from))
            self.start, tokenizer = load(run)
            theirs, ours = (
                {"model": each["model"], "block_size": each["data"]["block_size"]}
                for each in (run.config, to_dict(self.recipe))
            )
            check_same(theirs, ours, f"--init-from needs the network of {run.path}")
        self.text = load_text(self.recipe.data, tokenizer)
        self.tokens = self.text.tokenizer.tokens
        corpus, train, validation = self.text.corpus, self.text.train, self.text.validation
        counts = {"train_tokens": len(train), "validation_tokens": len(validation)}
        self.data = Data(corpus.name, corpus.data_source, self.text.fingerprint, corpus.note, counts)
        self.sizes = batch_sizes(self.recipe, self.recipe.training.windows_per_epoch)
        self.xla_is_faster = not isinstance(self.recipe, RecurrentRecipe)  # 1.3 times for Transformers

    def describe(self) -> str:
        """Describe the text and its tokens."""
        parts = f"{len(self.text.train):,} training and {len(self.text.validation):,} validation tokens"
        return f"{self.data.name}, {parts}, vocabulary of {len(self.tokens):,} {self.text.tokenizer.kind}"

    def batches(self) -> TrainingBatches:
        """Return windows of the training part, each with the tokens that follow."""
        seed = self.recipe.training.seed
        return training_windows(self.text.tokens, self.text.train, self.recipe.data, self.sizes, seed)

    def validation(self) -> Any:
        """Return windows in which each validation token is scored once."""
        return evaluation_windows(self.text.tokens, self.text.validation, self.recipe.data)

    def build(self) -> LanguageModel:
        """Build a Transformer or a recurrent network, or take the model that training starts from."""
        if self.start is not None:
            return copy_without_optimizer(self.start)  # with this training's precision and replicas
        recurrent = isinstance(self.recipe, RecurrentRecipe)
        network = RecurrentLanguageModel if recurrent else TransformerLanguageModel
        return network(self.recipe.model, len(self.tokens), self.recipe.data.block_size)

    def compile(self, model: keras.Model, **options: Any) -> None:
        """Compile with the cross-entropy of the next token, in nats."""
        model.compile(loss=self.loss, **options)

    def prepare(self, run: Run, model: keras.Model) -> None:
        """Write the vocabulary."""
        write_vocabulary(self.text.tokenizer, run.vocabulary_path)

    def callbacks(self, model: LanguageModel, *, final: bool) -> Sequence[keras.callbacks.Callback]:
        """Return callbacks that report perplexity and print a sample."""
        validation = self.text.validation
        metrics = TextMetrics(self._tokens_of_epoch, len(validation), validation.characters)
        self.sample = Sample(self._sampler(model), print) if final else None
        return [metrics, self.sample] if self.sample else [metrics]

    def score(self, model: keras.Model, part: Part) -> Scores:
        """Return loss in nats per token, perplexity and bits per character."""
        tokens: TextPart = getattr(self.text, part)
        loss = self._loss(model, tokens)
        metrics = {
            f"{part}_loss": loss,
            f"{part}_perplexity": perplexity(loss),
            f"{part}_bits_per_character": bits_per_character(loss, len(tokens), tokens.characters),
        }
        if part == "test":
            metrics["validation_and_test_loss"] = self._loss(model, self.text.validation + self.text.test)
        rounded = {name: round(value, 6) for name, value in metrics.items()}
        return Scores(rounded, {"tokens": len(tokens)}, model)

    def _loss(self, model: keras.Model, tokens: TextPart) -> float:
        if not model.compiled:
            self.compile(model)
        windows = evaluation_windows(self.text.tokens, tokens, self.recipe.data)
        return float(model.evaluate(windows, verbose=0))

    def page(self, run: Run, metrics: Mapping[str, Any], test: Scores) -> Page:
        """Show samples from the beginning, the middle and the end of the training."""
        kept = metrics["best_epoch"]
        texts = self.sample.texts if self.sample else []
        samples = dict(enumerate(texts, start=1)) or {kept: self._sampler(test.outputs)()}
        shown = [epoch for epoch in sorted({1, (kept + 1) // 2, kept}) if epoch in samples]
        return Page(
            figures={
                "test loss": f"{metrics['test_loss']:.4f} nats per token",
                "validation loss": f"{metrics['validation_loss']:.4f}",
                "validation and test loss": f"{metrics['validation_and_test_loss']:.4f}",
                "test perplexity": f"{metrics['test_perplexity']:.3f}",
                "test bits per character": f"{metrics['test_bits_per_character']:.4f}",
                "training tokens": f"{metrics['train_tokens']:,}",
                "evaluation": f"windows of {metrics['block_size']} tokens, stride {metrics['evaluation_stride']}",
            },
            texts=[
                Text(f"Sample after epoch {epoch} (temperature {SAMPLING.temperature})", samples[epoch])
                for epoch in shown
            ],
        )

    def _sampler(self, model: LanguageModel) -> Callable[[], str]:
        """Return a function that completes the beginning of the validation text, with the same seed each time."""
        start, tokenizer = self.text.validation.start, self.text.tokenizer
        prompt = decode(tokenizer, self.text.tokens[start : start + SAMPLE_PROMPT_TOKENS])
        generate, seed = TextGenerator(model, tokenizer).generate, self.recipe.training.seed
        return lambda: generate([prompt], max_new_tokens=SAMPLE_TOKENS, sampling=SAMPLING, seed=seed)[0]

    def examples(self) -> Any:
        """Return windows of the validation part, at most (16, block_size)."""
        return next(iter(self.validation()))[0][:SPEED_BATCH_SIZE].numpy()

    def outputs(self, run: Run | None = None) -> Sequence[bytes]:
        """Return the vocabulary."""
        return self.tokens if run is None else load(run)[1].tokens

    def details(self, epochs: int) -> dict[str, Any]:
        """Return vocabulary, window and training tokens."""
        data = self.recipe.data
        return {
            "tokenizer": self.text.tokenizer.kind,
            "vocabulary_size": len(self.tokens),
            "block_size": data.block_size,
            "evaluation_stride": data.evaluation_stride or data.block_size,
            "train_tokens": sum(map(self._tokens_of_epoch, range(epochs))),
        }

    def _tokens_of_epoch(self, epoch: int) -> int:
        """Return the tokens that an epoch, counted from 0, trains on."""
        return int(self.sizes.of_epoch(epoch).sum()) * self.recipe.data.block_size

    @classmethod
    def settings_to_continue(cls, run: Run) -> dict[str, Any]:
        """Keep the vocabulary of the run."""
        return {"init_from": str(run.path)}
