"""What a task is, and the one flow that trains, scores and reports every recipe.

A task is a kind of problem: image classification, language modelling, regression, sequence to sequence. Its class
says what is particular to it: load the data, build and compile the Keras model, score one part of the data, draw
the plots. `Task.train`, `Task.evaluate` and all that follows from them are the same for every task.

    run = ImageClassification("mnist-cnn", recipe).train(Path("runs/mine"))
"""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import keras
import tensorflow as tf

from recipes.config import Recipe, UserError
from recipes.distribution.strategy import join, on_one_device
from recipes.models.parameters import count_nonzero
from recipes.models.saved import load_model
from recipes.report.page import Page
from recipes.report.plots import plot_learning_curves
from recipes.report.run_page import write_report
from recipes.runs.directory import Run
from recipes.runs.opening import finished_run, open_run
from recipes.runs.recipe_lookup import recorded_recipe
from recipes.runs.record import check_same_data, check_scored
from recipes.training.compile import building, compile_model
from recipes.training.fit import Batches, Outcome, fit, fix_seed, save_model
from recipes.training.losses import Divergence, Term, distillation, softened_divergence

R = TypeVar("R", bound=Recipe)
Part = Literal["validation", "test"]
NO_PAGE = Page()


@dataclass(frozen=True)
class Data:
    """What a run records about its data.

    Attributes:
        name: What to call the dataset.
        source: The value of `--data.source` that loads it again.
        fingerprint: Short hash of the training part.
        note: What a reader of the results must know, such as that this is not the dataset asked for.
        counts: Sizes of the parts, by name.
    """

    name: str
    source: str
    fingerprint: str
    note: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return it for environment.json."""
        named = {name: getattr(self, name) for name in ("name", "source", "note", "fingerprint")}
        return named | dict(self.counts)


@dataclass(frozen=True)
class Scores:
    """Scores of a model on one part of the data.

    Attributes:
        metrics: By their names in metrics.json, such as `test_accuracy`.
        size: How much was scored, such as {"examples": 10000}.
        outputs: What the plots need besides: predictions, say.
        details: What metrics.json has besides the metrics, such as those of each class.
    """

    metrics: dict[str, Any]
    size: dict[str, int]
    outputs: Any = None
    details: Mapping[str, Any] = field(default_factory=dict)


class Task(abc.ABC, Generic[R]):
    """A kind of problem, for one recipe.

    Args:
        name: The recipe's name.
        recipe: Its settings.
        source: The finished run whose model is scored or changed; None to train a new one.

    Attributes:
        recipe_class: The class of its settings.
        data: What a run records about its data; `load` sets it.
        loss: What training minimizes, from targets and outputs.
        plotted_metric: The metric that is plotted beside the loss.
        xla_is_faster: Whether XLA makes a training step of its models faster on a CPU.
        served: Whether its models can be exported.
    """

    recipe_class: ClassVar[type[Recipe]]
    data: Data
    loss: keras.losses.Loss
    plotted_metric: str = "accuracy"
    xla_is_faster: bool = False
    served: ClassVar[bool] = True

    def __init__(self, name: str, recipe: R, source: Run | None = None) -> None:
        self.name = name
        self.recipe = recipe
        self.source = source

    # What is particular to a kind of problem.

    @abc.abstractmethod
    def load(self) -> None:
        """Load the data and set `data`.

        Raises:
            UserError: Data that is not there, can't be read, or does not fit the source run's model.
        """

    @abc.abstractmethod
    def describe(self) -> str:
        """Describe the data in a line."""

    @abc.abstractmethod
    def batches(self) -> Batches:
        """Return the training data."""

    @abc.abstractmethod
    def validation(self) -> tf.data.Dataset:
        """Return the validation part as batches of (inputs, targets) or (inputs, targets, weights)."""

    @abc.abstractmethod
    def build(self) -> keras.Model:
        """Build the model."""

    @abc.abstractmethod
    def compile(self, model: keras.Model, **options: Any) -> None:
        """Compile the model with its loss and metrics; `options` are the optimizer and how steps run."""

    @abc.abstractmethod
    def score(self, model: keras.Model, part: Part) -> Scores:
        """Score the model on one part of the data."""

    @abc.abstractmethod
    def page(self, run: Run, metrics: Mapping[str, Any], test: Scores) -> Page:
        """Draw the plots into `run.plots` and return what the report shows of the test part."""

    @abc.abstractmethod
    def examples(self) -> Any:
        """Return a batch of inputs to measure the model's speed on."""

    @abc.abstractmethod
    def outputs(self, run: Run | None = None) -> Any:
        """Return what the model's outputs stand for, here or in a finished run: a teacher's must be the same."""

    def prepare(self, run: Run, model: keras.Model) -> None:
        """Do what comes before training: write a vocabulary, pre-train."""

    def callbacks(self, model: keras.Model, *, final: bool) -> Sequence[keras.callbacks.Callback]:
        """Return callbacks that add to the metrics of an epoch."""
        return ()

    def divergence(self) -> Divergence:
        """Return the divergence of the model's outputs from a teacher's: by default that of classifiers."""
        from_logits = getattr(self.loss, "from_logits", False)
        return softened_divergence(self.recipe.distillation.temperature, from_logits=from_logits)

    def details(self, epochs: int) -> dict[str, Any]:
        """Return what metrics.json says about the data and the training of so many epochs."""
        return {}

    @classmethod
    def settings_to_continue(cls, run: Run) -> dict[str, Any]:
        """Return the settings that differ when a finished run's model is trained further."""
        return {}

    # What is the same for all.

    def train(
        self,
        path: Path,
        *,
        resume: bool = False,
        finish: bool = False,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        model: keras.Model | None = None,
        final: bool = True,
    ) -> Run:
        """Train to the end and write the run directory.

        Args:
            path: The run directory; an old run there is replaced unless it is resumed.
            resume: Resume the unfinished run there.
            finish: On resume, train no further: score the best of the epochs it has.
            callbacks: Further callbacks, called after the metrics of an epoch are known.
            model: A model to train instead of a new one, such as one that was pruned.
            final: Score the test part and write the report. A trial of a search and a step of a pruning do
                neither: what chooses between runs must not see the test part.

        Returns:
            The finished run.

        Raises:
            UserError: Data that can't be loaded, a batch larger than the data, or, on resume, other settings
                or other data than the run began with.
        """
        recipe = self.recipe
        strategy = join(self.name, recipe)
        fix_seed(recipe.training.seed)
        self.load()
        batches = self.batches()
        taught = self._distillation()
        with building(recipe.training, strategy):
            model = model or self.build()
        compile_model(model, recipe, self.compile, sizes=batches.sizes, xla_is_faster=self.xla_is_faster)
        steps = batches.sizes.total_steps
        with open_run(path, self.name, recipe, self.data.record(), resume=resume, steps=steps) as run:
            print(
                f"{self.title}: {model.count_params():,} parameters; {self.describe()}{self.warning()}",
                flush=True,
            )
            self.prepare(run, model)
            outcome = fit(
                model,
                recipe,
                run,
                batches,
                self.validation(),
                finish=finish,
                taught=taught,
                before_history=self.callbacks(model, final=final),
                after_history=callbacks,
            )
            model = on_one_device(model)
            save_model(model, run)
            if not final:
                run.finish(self.metrics(model, run, outcome))
                return run
            dense = type(model).from_config(model.get_config()) if recipe.pruning.sparsity else None
            self.write_results(model, run, outcome, before=dense)
        return run

    def evaluate(self, *, strict: bool = False) -> dict[str, Any]:
        """Score the source run's model on the test part of the data.

        Args:
            strict: Refuse other data than the run was trained on, instead of saying so in `note`.

        Returns:
            `dataset`, `note`, how much was scored, and the metrics of the test part.

        Raises:
            UserError: Data that can't be loaded or does not fit the model; `strict`, and data that changed.
        """
        self.load()
        other = check_scored(self.source_run, self.data.record(), strict=strict)
        scores = self.score(self.load_model(), "test")
        note = " ".join(filter(None, (self.data.note, other)))
        return {"dataset": self.data.name, "note": note, **scores.size, **scores.metrics}

    @property
    def title(self) -> str:
        """The recipe's name for people."""
        return self.name

    @property
    def source_run(self) -> Run:
        """The finished run whose model is scored or changed."""
        if self.source is None:
            raise ValueError(f"{self.name} is the task of a new run: it has no source")
        return self.source

    def load_model(self) -> keras.Model:
        """Load the source run's model."""
        return load_model(self.source_run.model_path)

    def reload(self) -> keras.Model:
        """Load the data and the model of the source run, whose model is to be changed.

        Raises:
            UserError: Data that can't be loaded any more, or that has changed.
        """
        run = self.source_run
        self.load()
        check_same_data(run, self.data.record(), f"{run.path} was trained on other data than there is now")
        if not self.data.note:  # the offline sample, asked for by its own name
            self.data = replace(self.data, note=run.metrics.get("note", ""))
        return self.load_model()

    def metrics(self, model: keras.Model, run: Run, outcome: Outcome) -> dict[str, Any]:
        """Return what metrics.json says, all but the test part."""
        return {
            "recipe": self.name,
            "dataset": self.data.name,
            "data_source": self.data.source,
            "seed": run.environment["seed"],
            "parameters": model.count_params(),
            "nonzero_parameters": count_nonzero(model),
            "epochs": outcome.epochs,
            "best_epoch": outcome.best_epoch,
            "train_seconds": outcome.train_seconds,
            **({"status": outcome.status} if outcome.status else {}),
            **({"note": self.data.note} if self.data.note else {}),
            **self.details(outcome.epochs),
            **self.score(model, "validation").metrics,
        }

    def write_results(
        self,
        model: keras.Model,
        run: Run,
        outcome: Outcome,
        *,
        before: keras.Model | None = None,
        changes: Mapping[str, Any] | None = None,
        page: Page = NO_PAGE,
    ) -> None:
        """Score a trained model on the test part, write the report, and finish the run.

        Args:
            model: The model.
            run: Its run.
            outcome: How it was trained.
            before: The model before it was pruned or quantised, to compare it with.
            changes: What metrics.json says about that.
            page: What the report shows about that.
        """
        test = self.score(model, "test")
        metrics = {**self.metrics(model, run, outcome), **test.metrics, **test.details}
        if before is not None:
            from recipes.compression.comparison import compare_models  # it imports the networks of every task

            compared, tables = compare_models(before, model, self.examples())
            metrics |= {**(changes or {}), **compared}
            page = replace(page, tables=[*tables, *page.tables])
        own = self.page(run, metrics, test)
        curves = run.plots / "learning_curves.png"
        plot_learning_curves(run.history, self.plotted_metric, outcome.best_epoch, curves)
        shown = replace(
            own, charts=[*page.charts, *own.charts], tables=[*page.tables, *own.tables], remarks=page.remarks
        )
        title, metric = f"{self.title} on {self.data.name}", self.plotted_metric
        write_report(run, title, metrics, shown, plotted_metric=metric, served=self.served)
        run.finish(metrics)

    def _distillation(self) -> Term | None:
        """Return the loss of the teacher, the model to learn from besides the labels, if there is one.

        Raises:
            UserError: An unfinished run, or one of another task or whose outputs stand for something else.
        """
        if self.recipe.distillation.teacher is None:
            return None
        run = finished_run(Path(self.recipe.distillation.teacher))
        if not isinstance(recorded_recipe(run.config), self.recipe_class):
            raise UserError(
                f"distillation.teacher: {run.path} is a run of {run.config['recipe']}, which is another task"
            )
        theirs, ours = self.outputs(run), self.outputs()
        if theirs != ours:
            raise UserError(
                f"distillation.teacher: the model of {run.path} has other outputs: {theirs}. Needed: {ours}"
            )
        teacher = load_model(run.model_path)
        return distillation(teacher, self.recipe.distillation.weight, self.divergence())

    def warning(self) -> str:
        """Return the note on the data as a line for the terminal, empty where there is none."""
        return f"\nWARNING: {self.data.note}" if self.data.note else ""
