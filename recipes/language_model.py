"""Train a model that tells the next token of a text: tiny Shakespeare, or your own.

    make train-lm
    python -m recipes train lm-lstm --data.source my_book.txt

Settings, data, model, train, test, report: it reads in that order. `recipes/catalog.py` says what
each recipe measured, `recipes/generation.py` how text comes out of it.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import numpy.typing as npt

from recipes.callbacks.carried_state import ForgetState
from recipes.callbacks.sample import Sample
from recipes.callbacks.text_metrics import TextMetrics, bits_per_character, perplexity
from recipes.completion import LanguageModel, Writer, load
from recipes.config import RecurrentRecipe, Sampling, TextData, TextRecipe, to_dict
from recipes.data.tokenizers import Tokenizer, decode, write_vocabulary
from recipes.data.tokens import Part, TokenizedText, load_text
from recipes.data.windows import TrainingWindows, evaluation_windows
from recipes.distribution import join, on_one_device
from recipes.models.bare import bare_copy
from recipes.models.recurrent import RecurrentLanguageModel
from recipes.models.transformer import TransformerLanguageModel
from recipes.reopened import Change, Reopened, pruned_in_training
from recipes.report.curves import plot_learning_curves
from recipes.report.page import Picture, Table, Text, settings_table, write_page
from recipes.run import Run, check_same, check_scored, open_run
from recipes.settings import recorded_recipe, with_settings
from recipes.training import (
    Outcome,
    batch_sizes,
    building,
    common_metrics,
    compile_model,
    fit,
    fix_seed,
    load_teacher,
    save_model,
)

SAMPLE_TOKENS = 400
SAMPLE_PROMPT_TOKENS = 16
SPEED_BATCH_SIZE = 16
SAMPLING = Sampling(temperature=0.8)


def train(  # noqa: PLR0913 - all there is to say of a training
    name: str,
    recipe: TextRecipe,
    path: Path,
    *,
    resume: bool = False,
    finish: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    model: LanguageModel | None = None,
    final: bool = True,
) -> Run:
    """Train a recipe to its end and write the run directory.

    Args:
        name: The recipe's name.
        recipe: Its settings.
        path: The run directory; an old run there is replaced unless it is resumed.
        resume: Continue the unfinished run there.
        finish: On resume, train no further: score the best of the epochs it has.
        callbacks: Further callbacks, called after the metrics of an epoch are known.
        model: A model to go on with, as one that was pruned, of the vocabulary of `init_from`; None
            builds the recipe's or loads that of `init_from`.
        final: As in `recipes.mnist.train`; without it there are no samples either.

    Returns:
        The finished run.

    Raises:
        UserError: Text that can't be had or read, or that is shorter than a window; on resume, other
            settings or text than the run began with.
    """
    strategy = join(name, recipe)
    fix_seed(recipe.training.seed)
    start = _starting_point(recipe)
    text = load_text(recipe.data, start[1] if start else None)
    sizes = batch_sizes(recipe, recipe.training.windows_per_epoch)
    batches = TrainingWindows(text.tokens, text.train, recipe.data, sizes, recipe.training.seed)
    tokens = text.tokenizer.tokens
    teacher = load_teacher(recipe, lambda run: load(run)[1].tokens, tokens)
    with building(recipe.training, strategy):
        # A copy is of this precision, and on these replicas.
        model = model or (bare_copy(start[0]) if start else build_model(recipe, len(tokens)))
    rate = compile_model(
        model,
        recipe,
        loss=loss_of_tokens(),
        sizes=sizes,
        jit_pays=pays_to_compile(model),
    )
    with open_run(path, name, recipe, _about(text), resume=resume, steps=sizes.total_steps) as run:
        print(f"{name}: {model.count_params():,} parameters; {_describe_text(text)}", flush=True)
        write_vocabulary(text.tokenizer, run.vocabulary_path)
        sample = Sample(_sampler(model, text, recipe.training.seed), print)
        before: list[keras.callbacks.Callback] = [
            TextMetrics(
                functools.partial(_tokens_of_epoch, recipe),
                len(text.validation),
                text.validation.characters,
            ),
            *([sample] if final else []),
        ]
        if isinstance(recipe, RecurrentRecipe) and recipe.data.stateful:
            before.append(ForgetState(model.carry_state(recipe.training.batch_size)))
        validation = evaluation_windows(text.tokens, text.validation, recipe.data)
        outcome = fit(
            model,
            recipe,
            run,
            batches,
            validation,
            rate,
            finish=finish,
            teacher=teacher,
            before_history=before,
            after_history=callbacks,
        )
        model = on_one_device(model)
        save_model(model, run)
        if not final:
            run.finish(_metrics(model, name, recipe, run, text, outcome))
            return run
        change = pruned_in_training(model, recipe, _examples(text, recipe.data))
        samples = dict(enumerate(sample.texts, start=1))
        _score_and_report(model, name, recipe, run, text, outcome, samples, change)
    return run


def reopen(run: Run) -> Reopened:
    """Open a finished run again, to make something of its model.

    Raises:
        UserError: An unfinished run, or text that can't be had any more.
    """
    tokenizer = load(run)[1]
    data_source = run.metrics["data_source"]
    # What goes on from it keeps its vocabulary.
    kept = {"data": {"source": data_source}, "init_from": str(run.path)}
    recipe = cast(TextRecipe, with_settings(recorded_recipe(run.config), kept))
    text = load_text(recipe.data, tokenizer)
    name = run.metrics["recipe"]

    def close(model: LanguageModel, new: Run, outcome: Outcome, change: Change) -> None:
        write_vocabulary(tokenizer, new.vocabulary_path)
        samples = {outcome.best_epoch: _sampler(model, text, recipe.training.seed)()}
        _score_and_report(model, name, recipe, new, text, outcome, samples, change)

    return Reopened(
        recipe=recipe,
        about=_about(text),
        validation=evaluation_windows(text.tokens, text.validation, recipe.data),
        examples=_examples(text, recipe.data),
        loss=loss_of_tokens(),
        validate=lambda model: _figures(
            "validation", score(model, text, text.validation, recipe.data), text.validation
        ),
        close=close,
    )


def build_model(recipe: TextRecipe, vocabulary_size: int) -> LanguageModel:
    """Build the network of a recipe."""
    if isinstance(recipe, RecurrentRecipe):
        return RecurrentLanguageModel(recipe.model, vocabulary_size, recipe.data.block_size)
    return TransformerLanguageModel(recipe.model, vocabulary_size, recipe.data.block_size)


def pays_to_compile(model: LanguageModel) -> bool:
    """Tell whether XLA makes a model faster on a CPU: Transformers about 1.3 times, loops over time not."""
    return model.window is not None


def loss_of_tokens() -> keras.losses.Loss:
    """Return the mean cross-entropy of the tokens, in nats."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _starting_point(recipe: TextRecipe) -> tuple[LanguageModel, Tokenizer] | None:
    """Load the run that training starts from, if there is one; its network must be the recipe's."""
    if recipe.init_from is None:
        return None
    run = Run(Path(recipe.init_from))
    model, tokenizer = load(run)
    theirs, ours = run.config, to_dict(recipe)
    check_same(
        {"model": theirs["model"], "block_size": theirs["data"]["block_size"]},
        {"model": ours["model"], "block_size": ours["data"]["block_size"]},
        f"--init-from needs the network of {run.path}",
    )
    return model, tokenizer


def score(model: keras.Model, text: TokenizedText, part: Part, data: TextData) -> float:
    """Return the mean loss of a part's tokens, in nats; each is scored once (`evaluation_windows`)."""
    if not model.compiled:
        model.compile(loss=loss_of_tokens())
    return float(model.evaluate(evaluation_windows(text.tokens, part, data), verbose=0))


def evaluate(run: Run, data: TextData, *, strict: bool = False) -> dict[str, Any]:
    """Score a finished run on the test part of any source, with the run's vocabulary.

    Returns:
        `dataset`, `note`, `tokens`, and test_loss, test_perplexity, test_bits_per_character. Arguments as
        `recipes.mnist.evaluate`.

    Raises:
        UserError: An unfinished run, or text that can't be read, has characters it does not know or, if
            `strict`, has changed.
    """
    model, tokenizer = load(run)
    text = load_text(data, tokenizer)
    other = check_scored(run, _about(text), strict=strict)
    loss = score(model, text, text.test, data)
    return {
        "dataset": text.corpus.name,
        "note": " ".join(filter(None, (text.corpus.note, other))),
        "tokens": len(text.test),
        **_figures("test", loss, text.test),
    }


def _sampler(model: LanguageModel, text: TokenizedText, seed: int) -> Callable[[], str]:
    """Return a function that goes on with the beginning of the validation text, always by the same draws."""
    start = text.validation.start
    prompt = decode(text.tokenizer, text.tokens[start : start + SAMPLE_PROMPT_TOKENS])
    writer = Writer(model, text.tokenizer)
    return lambda: writer.complete([prompt], max_new_tokens=SAMPLE_TOKENS, sampling=SAMPLING, seed=seed)[0]


def _examples(text: TokenizedText, data: TextData) -> npt.NDArray[np.int32]:
    """Return windows to measure speed on."""
    begins = text.validation.start + np.arange(SPEED_BATCH_SIZE)[:, np.newaxis]
    places = np.minimum(begins + np.arange(data.block_size), text.validation.stop - 1)
    return text.tokens[places].astype(np.int32)


def _about(text: TokenizedText) -> dict[str, Any]:
    return {
        "name": text.corpus.name,
        "source": text.corpus.origin,
        "note": text.corpus.note,
        "fingerprint": text.fingerprint,
        "train_tokens": len(text.train),
        "validation_tokens": len(text.validation),
    }


def _describe_text(text: TokenizedText) -> str:
    parts = f"{len(text.train):,} training and {len(text.validation):,} validation tokens"
    kinds = f"{len(text.tokenizer.tokens):,} kinds of tokens ({text.tokenizer.kind})"
    warning = f"\nWARNING: {text.corpus.note}" if text.corpus.note else ""
    return f"{text.corpus.name}, {parts}, {kinds}{warning}"


def _figures(name: str, loss: float, part: Part) -> dict[str, float]:
    figures = {
        "loss": loss,
        "perplexity": perplexity(loss),
        "bits_per_character": bits_per_character(loss, len(part), part.characters),
    }
    return {f"{name}_{figure}": round(value, 6) for figure, value in figures.items()}


def _tokens_of_epoch(recipe: TextRecipe, epoch: int) -> int:
    """Return the tokens that an epoch, counted from 0, trains on."""
    sizes = batch_sizes(recipe, recipe.training.windows_per_epoch)
    return int(sizes.of_epoch(epoch).sum()) * recipe.data.block_size


def _metrics(
    model: LanguageModel, name: str, recipe: TextRecipe, run: Run, text: TokenizedText, outcome: Outcome
) -> dict[str, Any]:
    """Return all metrics but those of the test part."""
    corpus = text.corpus
    return {
        **common_metrics(model, name, run, outcome, dataset=corpus.name, data_source=corpus.origin),
        **({"note": corpus.note} if corpus.note else {}),
        "tokenizer": text.tokenizer.kind,
        "vocabulary_size": len(text.tokenizer.tokens),
        "block_size": recipe.data.block_size,
        "evaluation_stride": recipe.data.evaluation_stride or recipe.data.block_size,
        "train_tokens": sum(_tokens_of_epoch(recipe, epoch) for epoch in range(outcome.epochs)),
        **_figures("validation", score(model, text, text.validation, recipe.data), text.validation),
    }


def _score_and_report(  # noqa: PLR0913 - all there is to say of a run
    model: LanguageModel,
    name: str,
    recipe: TextRecipe,
    run: Run,
    text: TokenizedText,
    outcome: Outcome,
    samples: dict[int, str],
    change: Change | None,
) -> None:
    metrics = {
        **_metrics(model, name, recipe, run, text, outcome),
        **_figures("test", score(model, text, text.test, recipe.data), text.test),
        "validation_and_test_loss": round(score(model, text, text.validation + text.test, recipe.data), 6),
    }
    curves = run.plots / "learning_curves.png"
    plot_learning_curves(run.history, "perplexity", outcome.best_epoch, curves)
    changed, tables = change.describe(model) if change else ({}, [])
    pictures = [*(change.pictures if change else ()), _curves_picture(curves, metrics)]
    _write_report(run, metrics, pictures, samples, tables)
    run.finish(metrics | changed)


def _curves_picture(curves: Path, metrics: dict[str, Any]) -> Picture:
    size, stride = metrics["block_size"], metrics["evaluation_stride"]
    return Picture(
        curves,
        "Loss in nats a token, perplexity and learning rate by epoch; the dotted line is the epoch that was "
        f"kept. Windows of {size} tokens, a new one every {stride} in evaluation.",
    )


def _write_report(
    run: Run,
    metrics: dict[str, Any],
    pictures: list[Picture],
    samples: dict[int, str],
    tables: list[Table],
) -> None:
    figures = {
        "test loss": f"{metrics['test_loss']:.4f} nats a token",
        "validation loss": f"{metrics['validation_loss']:.4f}",
        "validation and test loss": f"{metrics['validation_and_test_loss']:.4f}",
        "test perplexity": f"{metrics['test_perplexity']:.3f}",
        "test bits per character": f"{metrics['test_bits_per_character']:.4f}",
        "parameters": f"{metrics['parameters']:,}",
        "kept epoch": f"{metrics['best_epoch']} of {metrics['epochs']}",
        "training time": f"{metrics['train_seconds']:.0f} s",
        "training tokens": f"{metrics['train_tokens']:,}",
        "dataset": metrics["dataset"],
    }
    kept = metrics["best_epoch"]
    shown = sorted({1, (kept + 1) // 2, kept})
    write_page(
        run.path / "report.html",
        title=f"{metrics['recipe']} on {metrics['dataset']}",
        note=metrics.get("note", ""),
        figures=figures,
        pictures=pictures,
        texts=[
            Text(
                f"What the model wrote after epoch {epoch} (temperature {SAMPLING.temperature})",
                samples[epoch],
            )
            for epoch in shown
            if epoch in samples
        ],
        tables=[*tables, settings_table("Settings", run.config)],
    )
