"""What chooses the values of each trial: one oracle for each algorithm."""

from typing import Any

import keras_tuner

from recipes.config import Recipe, flatten, to_dict
from recipes.data.streams import stream
from tuning.oracles.bayesian import BayesianSearch
from tuning.oracles.durable import DurableOracle
from tuning.oracles.grid import GridSearch
from tuning.plan import Plan, SearchDirectory
from tuning.space import Dimension, own_values


class RandomSearch(DurableOracle, keras_tuner.oracles.RandomSearchOracle):
    """Values drawn evenly over the space."""


class HyperbandSearch(DurableOracle, keras_tuner.oracles.HyperbandOracle):
    """Many trials for a few epochs, the best of them for longer."""


def hyperparameters(recipe: Recipe, dimensions: list[Dimension]) -> keras_tuner.HyperParameters:
    """Return a space as keras-tuner has it, with the recipe's own values as defaults where they are inside."""
    own = dict(flatten(to_dict(recipe)))
    space = keras_tuner.HyperParameters()
    for dimension in dimensions:
        start = {"default": own[dimension.name]} if dimension.holds(own[dimension.name]) else {}
        if dimension.choices:
            ordered = not any(isinstance(choice, str | bool) for choice in dimension.choices)
            space.Choice(dimension.name, list(dimension.choices), ordered=ordered, **start)
            continue
        add = space.Int if isinstance(dimension.low, int) else space.Float
        scale = "log" if dimension.log else "linear"
        add(dimension.name, dimension.low, dimension.high, sampling=scale, **start)
    return space


def build_oracle(plan: Plan, search: SearchDirectory) -> DurableOracle:
    """Build the oracle of a search."""
    dimensions = plan.dimensions
    common: dict[str, Any] = {
        "search": search,
        "plan": plan,
        "objective": keras_tuner.Objective(plan.objective, "max" if plan.sign > 0 else "min"),
        "hyperparameters": hyperparameters(plan.recipe, dimensions),
        # keras-tuner adds 1 for each value that it draws, and takes 0 for none.
        "seed": int(stream(plan.method.seed, "search").integers(1, 2**32)),
    }
    first = own_values(plan.recipe, dimensions)
    match plan.method.algorithm:
        case "random":
            return RandomSearch(**common, first=first, max_trials=None)
        case "grid":
            return GridSearch(**common, first=None)
        case "hyperband":
            # Without end: the budget of trials or seconds ends it.
            epochs = plan.recipe.training.epochs
            return HyperbandSearch(**common, first=None, max_epochs=epochs, hyperband_iterations=None)
    return BayesianSearch(**common, first=first, max_trials=None)
