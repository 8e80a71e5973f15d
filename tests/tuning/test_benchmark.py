"""The benchmark of searches: its table, and that both searches have the same plan."""

import pytest

from benchmarks.tuning import FLAGS, plan_of, table_row
from recipes.catalog import CATALOG
from tuning.space import own_values


def test_a_row_has_mean_and_spread_of_the_best_values():
    results = [{"best": 0.99, "trials": 8}, {"best": 0.98, "trials": 9}]
    assert table_row("mnist-cnn", "ours", results) == "| `mnist-cnn` | ours | 0.9850 ± 0.0071 | 8.5 |"
    assert table_row("mnist-cnn", "ours", results[:1]) == "| `mnist-cnn` | ours | 0.9900 ± 0.0000 | 8.0 |"


@pytest.mark.parametrize("recipe", list(FLAGS))
def test_the_plan_starts_from_the_recipes_own_values(recipe):
    plan = plan_of(recipe)
    own = CATALOG[recipe].recipe
    assert plan.recipe.training.epochs == 2
    assert own_values(plan.recipe, plan.dimensions) == {
        "training.batch_size": own.training.batch_size,
        "optimizer.learning_rate": own.optimizer.learning_rate,
    }
