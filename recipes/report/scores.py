"""Class probabilities and labels → the numbers of a classifier."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support


@dataclass(frozen=True)
class ClassificationScores:
    """How well a classifier does on some examples.

    Attributes:
        loss: Mean cross-entropy, in nats an example.
        accuracy: Part of the examples whose likeliest class is theirs.
        precision, recall, f1: Of each class, (classes,); 0 where they would be 0/0.
        confusion: (classes, classes) counts; rows are true classes, columns predicted ones.
    """

    loss: float
    accuracy: float
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    f1: npt.NDArray[np.float64]
    confusion: npt.NDArray[np.int64]

    def summary(self, part: str) -> dict[str, float]:
        """Return the figures for metrics.json, named `part_loss`, `part_f1`, ...

        Precision, recall and F1 are means over classes, as scikit-learn's average="macro": a class
        that no example has and none was predicted as does not count.
        """
        counted = self.confusion.sum(axis=0) + self.confusion.sum(axis=1) > 0
        means = {name: float(getattr(self, name)[counted].mean()) for name in ("precision", "recall", "f1")}
        figures = {"loss": self.loss, "accuracy": self.accuracy, **means}
        return {f"{part}_{name}": round(value, 6) for name, value in figures.items()}

    def by_class(self, classes: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return precision, recall, F1 and number of examples of each class, in order."""
        return [
            {
                "class": name,
                "precision": round(float(self.precision[label]), 4),
                "recall": round(float(self.recall[label]), 4),
                "f1": round(float(self.f1[label]), 4),
                "examples": int(self.confusion[label].sum()),
            }
            for label, name in enumerate(classes)
        ]


def score_classification(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> ClassificationScores:
    """Score predicted probabilities.

    Args:
        probabilities: (n, classes), rows summing to 1.
        labels: (n,) true class numbers.
    """
    every_class = np.arange(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    of_truth = probabilities[np.arange(len(labels)), labels]
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=every_class, zero_division=0.0
    )
    return ClassificationScores(
        loss=float(-np.log(np.maximum(of_truth, 1e-7)).mean()),
        accuracy=float((predicted == labels).mean()),
        precision=precision,
        recall=recall,
        f1=f1,
        confusion=confusion_matrix(labels, predicted, labels=every_class),
    )


def most_confident_mistakes(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], count: int
) -> npt.NDArray[np.int64]:
    """Return the indices of the wrong predictions made with the highest probability, highest first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order][:count]
