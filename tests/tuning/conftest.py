"""A search without training: trials that are asked for, and told a value of a formula."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recipes.config import ImageData, ImageModel, ImageRecipe, Training
from tuning.directory import SearchDirectory
from tuning.plan import Method, Plan, make_plan
from tuning.search import Search
from tuning.trial import Trial

TINY = ImageRecipe(
    data=ImageData(source="digits"),
    model=ImageModel(dense=(8,)),
    training=Training(epochs=2, batch_size=64),
)


def plan_of(space: dict[str, str] | None = None, **method: Any) -> Plan:
    """Return a plan of a tiny image recipe."""
    return make_plan("mnist-mlp", TINY, space or {}, Method(objective="validation_accuracy", **method))


def bowl(values: dict[str, Any]) -> float:
    """Return the accuracy of a made-up recipe: best, 1.0, at batch size 128 and learning rate 0.003."""
    rate = math.log10(values["optimizer.learning_rate"] / 0.003)
    batch = math.log2(values["training.batch_size"] / 128)
    return 1 - 0.2 * rate**2 - 0.01 * batch**2


def finish(search: Search, trial: Trial, value: float) -> None:
    """Tell the value of a trial."""
    search.tell(replace(trial, status="finished", value=value, epochs=2))


def fail(search: Search, trial: Trial) -> None:
    """Tell that a trial failed."""
    search.tell(replace(trial, status="failed", reason="loss is NaN"))


def search_to_the_end(search: Search, value_of: Callable[[dict[str, Any]], float] = bowl) -> list[Trial]:
    """Ask for trials until the search ends and tell the value of each; return them."""
    asked = []
    while isinstance(trial := search.ask("a"), Trial):
        asked.append(trial)
        finish(search, trial, value_of(trial.values))
    assert trial == "end"
    return asked


@pytest.fixture
def make_directory(tmp_path: Path) -> Callable[[Plan], SearchDirectory]:
    """Give a search directory with a plan: a new one for each plan, the same one for the same plan."""
    known: list[Plan] = []

    def make(plan: Plan) -> SearchDirectory:
        if plan not in known:
            known.append(plan)
        directory = SearchDirectory(tmp_path / f"search-{known.index(plan)}")
        directory.write_plan(plan)
        return directory

    return make


@pytest.fixture
def make_search(make_directory: Callable[[Plan], SearchDirectory]) -> Callable[..., Search]:
    """Give a search of a plan, as a new process opens it: it continues an earlier one of the same plan."""

    def make(plan: Plan, **flags: bool) -> Search:
        return Search(make_directory(plan), **flags)

    return make
