import pytest

from recipes.catalog import CATALOG
from recipes.config import UserError, from_dict, with_settings
from tuning.space import (
    BATCH_SIZE,
    LEARNING_RATE,
    Dimension,
    apply,
    default_space,
    for_own_length,
    own_values,
    parse_space,
)

CNN, LM = CATALOG["mnist-cnn"].recipe, CATALOG["lm-transformer"].recipe


def one(name, text, recipe=CNN):
    return parse_space(recipe, {name: text})[0]


def test_the_default_space_is_around_the_recipes_own_values():
    space = default_space(CNN)
    assert space == {BATCH_SIZE: "32:512", LEARNING_RATE: "0.0004:0.04:log"}
    batch, rate = parse_space(CNN, space)
    assert batch.choices == (32, 64, 128, 256, 512)
    assert (rate.low, rate.high, rate.log) == (0.0004, 0.04, True)
    assert own_values(CNN, [batch, rate]) == {BATCH_SIZE: 128, LEARNING_RATE: 0.004}


@pytest.mark.parametrize(
    ("name", "text", "dimension"),
    [
        ("training.batch_size", "20:300", Dimension("training.batch_size", choices=(32, 64, 128, 256))),
        ("model.dropout", "0:0.5", Dimension("model.dropout", 0.0, 0.5)),
        ("model.kernel_size", "3:7", Dimension("model.kernel_size", 3, 7)),
        ("optimizer.weight_decay", "1e-5:0.1:log", Dimension("optimizer.weight_decay", 1e-5, 0.1, True)),
        ("schedule.name", "cosine,wsd", Dimension("schedule.name", choices=("cosine", "wsd"))),
        ("model.batch_normalization", "true,false", Dimension("model.batch_normalization", choices=(True, False))),
        ("training.epochs", "2,4,8", Dimension("training.epochs", choices=(2, 4, 8))),
    ],
)  # fmt: skip
def test_ranges_and_choices(name, text, dimension):
    assert one(name, text) == dimension


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("model.dropuot", "0:0.5", "no setting 'model.dropuot'. Did you mean model.dropout?"),
        ("optimizer", "0:1", "only numbers and names"),
        ("model.convolutions", "1,2", "only numbers and names"),
        ("model.dropout", "0.5:0.5", "empty or reversed. Received: low=0.5, high=0.5"),
        ("model.dropout", "0.5:0.1", "empty or reversed"),
        ("model.dropout", "0:0.5:log", "a log scale starts above 0. Received: low=0.0"),
        ("model.dropout", "0:0.5:lin", "must be LOW:HIGH, LOW:HIGH:log, or values"),
        ("model.dropout", "0:2", r"model.dropout must be in \[0, 1\)"),
        ("model.dropout", "a:b", "takes numbers"),
        ("model.dropout", "nan:1", "takes numbers"),
        ("model.kernel_size", "3:5.5", "takes whole numbers"),
        ("model.dropout", "0.5", "needs two values or more"),
        ("schedule.name", "a:b", "a range is for numbers"),
        ("schedule.name", "cosine,cosin", "schedule.name must be one of"),
        ("training.batch_size", "65:127", "two powers of two"),
        ("training.batch_size", "0,64", "training.batch_size must be at least 1"),
    ],
)
def test_an_invalid_space_is_refused_by_name(name, text, message):
    with pytest.raises(UserError, match=message):
        one(name, text)


def test_values_become_settings_and_must_be_valid_together():
    dimensions = parse_space(CNN, {LEARNING_RATE: "1e-4:1e-1:log", "schedule.name": "cosine,wsd"})
    recipe = apply(CNN, dimensions, {LEARNING_RATE: 0.02, "schedule.name": "wsd"})
    assert (recipe.optimizer.learning_rate, recipe.schedule.name) == (0.02, "wsd")
    assert recipe.optimizer.weight_decay == CNN.optimizer.weight_decay
    with pytest.raises(UserError, match="schedule cosine takes final_fraction"):
        apply(CNN, dimensions, {"schedule.name": "cosine", "schedule.decay_fraction": 0.5})


def test_every_trial_of_a_text_recipe_has_the_same_number_of_tokens():
    dimensions = parse_space(LM, {BATCH_SIZE: "2:16"})
    for batch in (2, 4, 8, 16):
        training = apply(LM, dimensions, {BATCH_SIZE: batch}).training
        assert abs(training.batch_size * training.steps_per_epoch - 4 * 350) <= batch / 2
    both = parse_space(LM, {BATCH_SIZE: "2:16", "training.steps_per_epoch": "10:20"})
    chosen = apply(LM, both, {BATCH_SIZE: 8, "training.steps_per_epoch": 15}).training
    assert (chosen.batch_size, chosen.steps_per_epoch) == (8, 15)


def test_own_values_outside_the_space_are_none():
    assert own_values(CNN, parse_space(CNN, {BATCH_SIZE: "8:64"})) is None
    assert own_values(CNN, parse_space(CNN, {"model.dropout": "0:0.3"})) is None


def test_the_settings_of_a_short_search_are_for_the_recipes_own_length():
    """lm-transformer: batches of 4, 350 steps an epoch; searched for 2 epochs of 60 steps of 8."""
    short = with_settings(
        LM,
        {
            "training": {"epochs": 2, "steps_per_epoch": 60, "batch_size": 8},
            "early_stopping": {"patience": 1},
            "schedule": {"warmup": 0.05},
            "model": {"dropout": 0.25},
        },
    )
    dimensions = parse_space(short, {BATCH_SIZE: "2:16"})
    found = from_dict(type(LM), for_own_length(LM, short, dimensions, {BATCH_SIZE: 16}))
    own = LM.training
    assert (found.training.epochs, found.training.batch_size) == (own.epochs, 16)
    assert found.training.steps_per_epoch == 350 * 8 / 16
    assert found.early_stopping == LM.early_stopping
    assert found.schedule.warmup == LM.schedule.warmup
    assert found.model.dropout == 0.25


def test_a_searched_length_and_the_settings_of_a_full_length_search_are_kept():
    epochs = parse_space(CNN, {"training.epochs": "2,4,8"})
    assert for_own_length(CNN, CNN, epochs, {"training.epochs": 4})["training"]["epochs"] == 4
    patient = with_settings(CNN, {"early_stopping": {"patience": 3}})
    rates = parse_space(patient, {LEARNING_RATE: "1e-4:1e-1:log"})
    found = for_own_length(CNN, patient, rates, {LEARNING_RATE: 0.002})
    assert (found["training"]["epochs"], found["early_stopping"]["patience"]) == (CNN.training.epochs, 3)


@pytest.mark.parametrize(
    ("text", "value", "edge"),
    [
        ("0:0.5", 0.02, True),
        ("0:0.5", 0.03, False),
        ("0:0.5", 0.48, True),
        ("1e-4:1e-2:log", 1.2e-4, True),
        ("1e-4:1e-2:log", 1.3e-4, False),
        ("0.1,0.2,0.3", 0.3, True),
        ("0.1,0.2,0.3", 0.2, False),
        ("0.1,0.2", 0.2, False),
    ],
)
def test_the_edge_of_a_range_is_a_twentieth_of_it(text, value, edge):
    kind = "optimizer.learning_rate" if "log" in text else "model.dropout"
    assert one(kind, text).at_edge(value) is edge


def test_names_have_no_edge():
    assert one("schedule.name", "cosine,wsd,constant").at_edge("cosine") is False


@pytest.mark.parametrize("text", ["0:0.5", "1e-4:1e-2:log", "0.1,0.2,0.3"])
def test_a_value_at_a_place_has_that_place(text):
    dimension = one("optimizer.learning_rate" if "log" in text else "model.dropout", text)
    for place in (0.0, 0.1, 0.5, 0.9, 0.999):
        found = dimension.place(dimension.value_at(place))
        assert found == pytest.approx(place, abs=1 / 6 if dimension.choices else 1e-9)


def test_all_whole_numbers_of_a_range_can_be_drawn():
    dimension = one("model.kernel_size", "3:7")
    assert {dimension.value_at(step / 1000) for step in range(1000)} == {3, 4, 5, 6, 7}
