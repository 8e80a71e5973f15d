"""A search without training: oracles asked for values, and told what a formula makes of them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipes.config import ImageData, ImageModel, ImageRecipe, Training
from tuning.oracles import build_oracle
from tuning.plan import Method, Plan, SearchDirectory, make_plan

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


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., SearchDirectory]:
    """Give a search directory with a plan."""

    def make(plan: Plan) -> SearchDirectory:
        directory = SearchDirectory(tmp_path / "search")
        directory.write_plan(plan)
        return directory

    return make


@pytest.fixture
def oracle(tmp_path: Path) -> Callable[..., Any]:
    """Give an oracle of a plan, from where an earlier one of the same test stood."""

    def make(plan: Plan, **flags: Any) -> Any:
        built = build_oracle(plan, SearchDirectory(tmp_path))
        built.read(workers_live=flags.get("workers_live", False))
        return built

    return make
