"""The benchmarks: rows of their tables, and that both searches compared have the same plan."""

import pytest

from benchmarks.tables import mean_and_spread, print_header, print_row
from benchmarks.tuning import FLAGS, plan_of
from recipes.catalog import CATALOG
from tuning.space import own_values


def test_several_results_are_their_mean_and_the_deviation_of_a_sample():
    assert mean_and_spread([0.99, 0.98], 4) == "0.9850 ± 0.0071"  # 0.01 / √2
    assert mean_and_spread([1, 2, 3, 4]) == "2.50 ± 1.29"  # √(5 / 3)


def test_one_result_has_no_spread():
    assert mean_and_spread([0.99], 4) == "0.9900"


def test_a_table_is_markdown(capsys):
    print_header("recipe", "loss")
    print_row("`lm-lstm`", 1.5)
    assert capsys.readouterr().out == "| recipe | loss |\n|---|---|\n| `lm-lstm` | 1.5 |\n"


@pytest.mark.parametrize("recipe", list(FLAGS))
def test_the_plan_starts_from_the_recipes_own_values(recipe):
    plan = plan_of(recipe)
    own = CATALOG[recipe].recipe
    assert plan.recipe.training.epochs == 2
    assert own_values(plan.recipe, plan.dimensions) == {
        "training.batch_size": own.training.batch_size,
        "optimizer.learning_rate": own.optimizer.learning_rate,
    }
