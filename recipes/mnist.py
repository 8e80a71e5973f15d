"""Image classification: MNIST, its relatives, or your own images, grey or in colour.

    make train-mnist
    python -m recipes train mnist-cnn --training.epochs 3

`mnist-cnn` with its default settings classifies 99.57 ± 0.06 % of MNIST's test images (3 seeds) after some 150
seconds on 2 cores; `recipes/catalog.py` has the others.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from recipes.config import Augmentation, ImageRecipe, UserError
from recipes.data.augmentation import augment, warning
from recipes.data.batch_sizes import batch_sizes
from recipes.data.batches import TrainingBatches, evaluation_images, training_images
from recipes.data.examples import with_few_labels
from recipes.data.images import describe_shape, image_shape, load_images
from recipes.data.streams import draw_keys, stream
from recipes.models.image import build_classifier, shorten_averages
from recipes.report.charts import draw_confusion
from recipes.report.page import Chart, Page, Picture, Table
from recipes.report.plots import plot_augmentation, plot_confusion, plot_mistakes
from recipes.report.scores import most_confident_mistakes, score_classification
from recipes.runs.directory import Run
from recipes.task import Data, Part, Scores, Task
from recipes.training.losses import build_loss
from recipes.training.pretraining import pretrain

MISTAKES_SHOWN = 32
SPEED_BATCH_SIZE = 256


class ImageClassification(Task[ImageRecipe]):
    """Classify images: raw pixels 0 to 255, (batch, height, width, channels), to probabilities, (batch, classes)."""

    recipe_class = ImageRecipe

    def load(self) -> None:
        """Load and split the images."""
        settings = self.recipe.data
        if self.source:
            trained = self.source.metrics
            self.dataset = load_images(settings, trained["data_source"], image_shape(trained))
        else:
            self.dataset = load_images(settings)
        source, train = self.dataset.source, self.dataset.train
        self.classes = source.classes
        if self.source and list(self.classes) != self.source.metrics["classes"]:
            raise UserError(
                f"{self.source.path} knows the classes {', '.join(self.source.metrics['classes'])}. "
                f"Received: {', '.join(self.classes)}"
            )
        self.shape = self.dataset.train.images.shape[1:]
        self.recipe.model.check_stages(min(self.shape[:2]))
        self.labelled = with_few_labels(train, settings.labels_per_class, settings.split_seed, self.classes)
        counts = {"train_examples": len(train), "validation_examples": len(self.dataset.validation)}
        self.data = Data(source.name, source.data_source, train.fingerprint(), source.note, counts)
        self.loss = build_loss(self.recipe.loss)

    def describe(self) -> str:
        """Describe the data, and what augmentation may do to its classes."""
        train, labelled = len(self.dataset.train), len(self.labelled)
        few = f" ({labelled:,} with labels)" if labelled < train else ""
        parts = f"{train:,} training{few} and {len(self.dataset.validation):,} validation images{describe_shape(self.shape)}"
        doubts = warning(self.recipe.augmentation, self.classes)
        return f"{self.data.name}, {parts}" + (f"\n{doubts.rstrip()}" if doubts else "")

    def batches(self) -> TrainingBatches:
        """Return batches of augmented images and one-hot labels."""
        sizes = batch_sizes(self.recipe, len(self.labelled))
        seed = self.recipe.training.seed
        return training_images(self.labelled, len(self.classes), sizes, self.recipe.augmentation, seed)

    def validation(self) -> Any:
        """Return the validation images with one-hot labels."""
        return evaluation_images(self.dataset.validation, len(self.classes))

    def build(self) -> keras.Model:
        """Build convolution stages, dense layers and a softmax."""
        model = build_classifier(self.recipe.model, self.shape, len(self.classes))
        shorten_averages(model, batch_sizes(self.recipe, len(self.labelled)).total_steps)
        return model

    def compile(self, model: keras.Model, **options: Any) -> None:
        """Compile with the recipe's loss, cross-entropy by default, and accuracy."""
        model.compile(loss=self.loss, metrics=["accuracy"], **options)

    def prepare(self, run: Run, model: keras.Model) -> None:
        """Pre-train the hidden layers without labels, where the recipe does."""
        if self.recipe.pretraining.epochs:
            images, validation = self.dataset.train.images, self.dataset.validation.images
            pretrain(
                self.name,
                self.recipe,
                model,
                images,
                validation,
                run.path / "pretraining",
                self.data.record(),
            )

    def score(self, model: keras.Model, part: Part) -> Scores:
        """Return loss, accuracy, and precision, recall and F1 averaged over the classes."""
        examples = self.dataset.validation if part == "validation" else self.dataset.read_test()
        probabilities = model.predict(evaluation_images(examples, len(self.classes)), verbose=0)
        scores = score_classification(probabilities, examples.labels)
        by_class = {f"{part}_by_class": scores.by_class(self.classes)}
        size = {"examples": len(examples)}
        return Scores(scores.summary(part), size, (examples, probabilities, scores), by_class)

    def page(self, run: Run, metrics: Mapping[str, Any], test: Scores) -> Page:
        """Show the most confident mistakes, the confusion matrix and the metrics by class."""
        examples, probabilities, scores = test.outputs
        wrong = most_confident_mistakes(probabilities, examples.labels, MISTAKES_SHOWN)
        mistakes, confusion = run.plots / "mistakes.png", run.plots / "confusion_matrix.png"
        plot_mistakes(
            examples.images[wrong], examples.labels[wrong], probabilities[wrong], self.classes, mistakes
        )
        plot_confusion(scores.confusion, self.classes, confusion)
        return Page(
            figures={
                "test accuracy": f"{100 * metrics['test_accuracy']:.2f} %",
                "validation accuracy": f"{100 * metrics['validation_accuracy']:.2f} %",
                "test loss": f"{metrics['test_loss']:.4f} nats",
            },
            charts=[
                Chart(
                    [draw_confusion(scores.confusion, self.classes)],
                    "Test images: rows are true classes, columns predictions.",
                )
            ],
            pictures=[
                Picture(
                    mistakes,
                    "The most confident mistakes on the test images: true class, prediction, probability.",
                )
            ],
            tables=[Table("Test metrics by class", metrics["test_by_class"])],
        )

    def examples(self) -> npt.NDArray[np.float32]:
        """Return validation images, (256, height, width, channels)."""
        images: npt.NDArray[np.float32] = self.dataset.validation.images[:SPEED_BATCH_SIZE].astype(np.float32)
        return images

    def outputs(self, run: Run | None = None) -> list[str]:
        """Return the names of the classes."""
        return list(self.classes) if run is None else list(run.metrics["classes"])

    def details(self, epochs: int) -> dict[str, Any]:
        """Return the names of the classes, and the shape of the images."""
        return {"classes": list(self.classes), "image_shape": list(self.shape)}

    @classmethod
    def settings_to_continue(cls, run: Run) -> dict[str, Any]:
        """Leave pre-training out: the model has been pre-trained."""
        return {"pretraining": {"epochs": 0}}

    def preview(self, path: Path, *, images: int = 8, variants: int = 9) -> None:
        """Plot training images before and after augmentation; `variants` augmented versions of each."""
        self.load()
        seed, augmentation = self.recipe.training.seed, self.recipe.augmentation
        print(f"{self.describe()}{self.warning()}")
        sizes = batch_sizes(self.recipe, len(self.labelled))
        shuffled = training_images(self.labelled, len(self.classes), sizes, Augmentation(), seed)
        before, _ = next(iter(shuffled.dataset))
        keys = draw_keys(stream(seed, "preview"), variants)
        after = [augment(before, augmentation, key) for key in keys]
        plot_augmentation(before[:images].numpy(), np.stack(after)[:, :images], path)
