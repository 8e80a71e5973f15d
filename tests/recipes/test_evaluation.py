import math

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from recipes.report.scores import most_confident_mistakes, score_classification

# Five examples of three classes; the third class is never predicted.
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.5, 0.4, 0.1], [0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1]], np.float32
)
LABELS = np.array([0, 0, 1, 1, 2])


def test_scores_are_what_a_hand_counts():
    scores = score_classification(PROBABILITIES, LABELS)
    assert scores.accuracy == 3 / 5
    assert scores.confusion.tolist() == [[2, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert scores.precision == pytest.approx([2 / 3, 1 / 2, 0])
    assert scores.recall == pytest.approx([1, 1 / 2, 0])
    assert scores.f1 == pytest.approx([4 / 5, 1 / 2, 0])
    assert scores.loss == pytest.approx(-sum(map(math.log, (0.8, 0.5, 0.05, 0.7, 0.1))) / 5, rel=1e-6)
    assert scores.summary("test")["test_f1"] == pytest.approx(1.3 / 3, abs=1e-6)
    assert scores.by_class(("a", "b", "c"))[1] == {
        "class": "b",
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
        "examples": 2,
    }


@pytest.mark.parametrize(
    ("labels", "predicted"),
    [
        ([0, 1, 2], [0, 1, 2]),  # a perfect classifier, although class 3 is absent
        ([0, 0, 1], [0, 1, 1]),
        ([0, 0, 1], [0, 3, 1]),  # class 3 is absent but predicted: it counts
        ([0, 3, 1], [0, 0, 1]),  # class 3 is never predicted: it counts
        ([2], [1]),
    ],
)
def test_macro_means_are_those_of_scikit_learn(labels, predicted):
    summary = score_classification(np.eye(4, dtype=np.float32)[predicted], np.array(labels)).summary("test")
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, average="macro", zero_division=0.0
    )
    assert summary["test_precision"] == pytest.approx(precision, abs=1e-6)
    assert summary["test_recall"] == pytest.approx(recall, abs=1e-6)
    assert summary["test_f1"] == pytest.approx(f1, abs=1e-6)


def test_the_most_confident_mistakes_come_first():
    assert most_confident_mistakes(PROBABILITIES, LABELS, 5).tolist() == [2, 4]
    assert most_confident_mistakes(PROBABILITIES, LABELS, 1).tolist() == [2]
