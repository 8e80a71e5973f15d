"""What a search does: its recipe, search space, objective and budget, as `search.json` records them."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from recipes.config import (
    Recipe,
    UserError,
    better_when_low,
    from_dict,
    nearest,
    require,
    require_seed,
    to_dict,
    with_settings,
)
from recipes.runs.recipe_lookup import find_recipe
from tuning.space import Dimension, default_space, parse_space


@dataclass(frozen=True, kw_only=True)
class Method:
    """How to search."""

    algorithm: Literal["bayesian", "random", "grid", "hyperband"] = "bayesian"
    """How the next trial is chosen. hyperband trains many trials for a few epochs and the best of
    them for longer, up to --training.epochs (Li et al. 2018, arXiv:1603.06560)."""
    objective: str | None = None
    """Validation metric to optimize (None: the recipe's early_stopping.metric)."""
    trials: int = 20
    """Maximum number of trials, at least 1."""
    seconds: float | None = None
    """Maximum time in which trials run, s, above 0; the running trials then stop after their epoch
    (None: no limit)."""
    executions: int = 1
    """Seeds per trial, at least 1; a trial's value is their mean."""
    early_ending: bool = True
    """Stop a trial that is worse than the median of the finished trials at the same epoch (the median
    rule of Golovin et al. 2017, Google Vizier), if their early values predicted their final ones."""
    seed: int = 0
    """Seed of the search; the recipe's training.seed is the seed of its trials."""

    def __post_init__(self) -> None:
        require(self.trials >= 1, "--trials must be at least 1", trials=self.trials)
        require(self.executions >= 1, "--executions must be at least 1", executions=self.executions)
        require(self.seconds is None or self.seconds > 0, "--seconds must be above 0", seconds=self.seconds)
        require_seed("--seed", self.seed)


@dataclass(frozen=True)
class Plan:
    """The settings of a search.

    Attributes:
        name: Name of the recipe.
        recipe: Settings of the recipe; its early_stopping.metric is the objective.
        space: Range or choices of each searched setting, as text.
        method: How to search.
    """

    name: str
    recipe: Recipe
    space: dict[str, str]
    method: Method

    @property
    def objective(self) -> str:
        """The validation metric to optimize."""
        return self.recipe.early_stopping.metric

    @property
    def sign(self) -> int:
        """1 if the objective is maximized, -1 if it is minimized."""
        return -1 if better_when_low(self.objective) else 1

    @functools.cached_property
    def dimensions(self) -> list[Dimension]:
        """The searched settings."""
        return parse_space(self.recipe, self.space)

    def to_json(self) -> dict[str, Any]:
        """Return the content of `search.json`."""
        method = to_dict(self.method) | {"objective": self.objective}
        return {"recipe": self.name, "settings": to_dict(self.recipe), "space": self.space, **method}


def make_plan(name: str, recipe: Recipe, space: Mapping[str, str], method: Method) -> Plan:
    """Check the settings of a search and fill in defaults.

    Args:
        name: Name of the recipe.
        recipe: Settings of the recipe.
        space: Ranges or choices in addition to, or instead of, the default ones of batch size and
            learning rate.
        method: How to search.

    Raises:
        UserError: The recipe does not report the objective, or the space is invalid.
    """
    require(
        recipe.training.seed + method.executions <= 2**32,
        f"a trial's seeds are training.seed and those after it, at most {2**32 - 1}",
        seed=recipe.training.seed,
        executions=method.executions,
    )
    metric = method.objective or recipe.early_stopping.metric
    if metric not in recipe.metrics:
        raise UserError(f"--objective: the recipe reports no {metric!r}. {nearest(metric, recipe.metrics)}")
    chosen = with_settings(recipe, {"early_stopping": {"metric": metric}})
    plan = Plan(name, chosen, {**default_space(recipe), **space}, method)
    names = [dimension.name for dimension in plan.dimensions]
    require(
        method.algorithm != "hyperband" or "training.epochs" not in names,
        "hyperband chooses the epochs itself: leave --space.training.epochs out",
        algorithm=method.algorithm,
    )
    return plan


def plan_from_json(tree: Any) -> Plan:
    """Return the plan in the content of `search.json`.

    Raises:
        UserError: The content is invalid.
    """
    kinds = {"recipe": str, "settings": dict, "space": dict}
    if not isinstance(tree, dict) or not all(isinstance(tree.get(key), kinds[key]) for key in kinds):
        raise UserError("a search has a recipe (text), settings and a space (tables)")
    method = {key: value for key, value in tree.items() if key not in kinds}
    name, space = tree["recipe"], tree["space"]
    texts = all(isinstance(text, str) for text in space.values())
    require(texts, "space must have a range or values as text for each setting", space=space)
    recipe = from_dict(type(find_recipe(name).recipe), tree["settings"])
    return make_plan(name, recipe, space, from_dict(Method, method))
