import dataclasses

import pytest

from recipes.catalog import CATALOG
from recipes.config import (
    Augmentation,
    EarlyStopping,
    ImageRecipe,
    Optimizer,
    Schedule,
    TableRecipe,
    Training,
    UserError,
    from_dict,
    nearest,
    to_dict,
)


@pytest.mark.parametrize("name", CATALOG)
def test_every_recipe_survives_the_way_to_json_and_back(name):
    recipe = CATALOG[name].recipe
    assert from_dict(type(recipe), to_dict(recipe)) == recipe


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Training().epochs = 3


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"training": {"epochs": 0}}, "training.epochs must be at least 1. Received: epochs=0"),
        ({"training": {"batch_size": 0}}, "batch_size=0"),
        ({"training": {"epoch": 3}}, "There is no setting 'training.epoch'. Did you mean epochs?"),
        ({"training": {"epochs": "3"}}, "training.epochs must be int. Received: '3'"),
        ({"training": {"epochs": True}}, "training.epochs must be int. Received: True"),
        ({"training": 3}, "training must be a table of settings. Received: 3"),
        ({"model": {"dense": [0]}}, r"dense=\(0,\)"),
        ({"model": {"padding": "full"}}, "model.padding must be one of same, valid. Received: 'full'"),
        (
            {"schedule": {"name": "cosine", "power": 2.0}},
            "schedule cosine takes final_fraction. Received: power",
        ),
        (
            {"schedule": {"name": "polynomial", "power": 0}},
            "schedule.power must be above 0. Received: power=0",
        ),
        ({"schedule": {"warmup": 10.0}}, "shorter than the training. Received: warmup=10.0, epochs=10"),
        ({"optimizer": {"momentum": 0.9}}, "optimizer adam takes beta_1, beta_2. Received: momentum=0.9"),
        (
            {"optimizer": {"name": "muon", "beta_2": 1.0}},
            r"optimizer.beta_2 must be in \[0, 1\) or None. Received: beta_2=1.0",
        ),
        ({"optimizer": {"clip_norm": 0.0}}, "clip_norm=0.0"),
        ({"early_stopping": {"metric": "validation_acc"}}, "Did you mean validation_accuracy?"),
        ({"model": {"kernel_size": 40}}, "model.kernel_size must be 1 to 28. Received: kernel_size=40"),
        (
            {"model": {"convolutions": [8] * 6}},
            r"stage 5 gets 1 x 1 pixels, too few for 2 x 2 pooling. "
            r"Received: convolutions=\(8, 8, 8, 8, 8, 8\), depth=1, kernel_size=3, padding='same'",
        ),
        (
            {"model": {"convolutions": [8, 8, 8], "kernel_size": 5, "padding": "valid"}},
            "stage 3 gets 4 x 4 pixels, too few for 5 x 5 kernels without padding",
        ),
        (
            {"data": {"image_size": 2}, "model": {"kernel_size": 1, "standardize": True}},
            "standardize needs images of at least 3 x 3 pixels, not 2 x 2. Received: standardize=True",
        ),
        ({"model": {"members": 0}}, "model.members must be at least 1. Received: members=0"),
        ({"model": {"members": 2}, "loss": "hinge"}, "members above 1 is for the cross-entropy"),
        (
            {"model": {"members": 2}, "pretraining": {"epochs": 1}},
            "model.members must be 1. Received: members=2",
        ),
        ({"early_stopping": {"start_fraction": 1.0}}, r"in \[0, 1\). Received: start_fraction=1.0"),
    ],
)
def test_wrong_settings_say_what_was_received(tree, message):
    with pytest.raises(UserError, match=message):
        from_dict(ImageRecipe, tree)


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize(
    ("kind", "group", "name"),
    [
        (ImageRecipe, "training", "seed"),
        (ImageRecipe, "data", "split_seed"),
        (TableRecipe, "data", "split_seed"),
    ],
)
def test_seeds_have_32_bits(kind, group, name, seed):
    with pytest.raises(UserError, match=f"{group}.{name} must be 0 to 4294967295. Received: {name}={seed}"):
        from_dict(kind, {group: {name: seed}})
    assert from_dict(kind, {group: {name: 2**32 - 1}})


def test_an_optimizer_has_its_own_defaults_where_a_setting_is_none():
    assert Optimizer(name="momentum").parameters() == {"weight_decay": 0.0, "momentum": 0.9}
    assert Optimizer(name="muon", momentum=0.8).resolved() == Optimizer(
        name="muon", weight_decay=0.0, momentum=0.8, adam_fraction=0.5, beta_2=0.95
    )
    assert Optimizer(name="adamw").resolved().unresolved() == Optimizer(name="adamw")


def test_a_schedule_has_the_settings_that_it_reads():
    assert Schedule(name="polynomial").parameters() == {"power": 1.0}
    assert Schedule(name="wsd", decay_fraction=0.5).parameters() == {
        "decay_fraction": 0.5,
        "final_fraction": 0.0,
    }


def test_settings_that_were_removed_are_read_from_files_while_they_had_no_effect():
    older = {
        "augmentation": {"erase": 0.0, "mix_up": 0.0, "rotate": 5.0},
        "schedule": {"name": "plateau", "every": "step", "factor": None, "boundaries": None},
        "training": {"jit": "auto", "epochs": 3},
    }
    assert from_dict(ImageRecipe, older) == ImageRecipe(
        augmentation=Augmentation(rotate=5.0), schedule=Schedule(name="plateau"), training=Training(epochs=3)
    )
    with pytest.raises(UserError, match="no setting 'augmentation.erase'"):
        from_dict(ImageRecipe, {"augmentation": {"erase": 0.2}})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1])
def test_ranges_hold_finite_numbers_only(value):
    with pytest.raises(UserError, match="optimizer.learning_rate must be above 0"):
        Optimizer(learning_rate=value)


def test_a_part_of_the_epochs_is_counted_as_it_is_written():
    """0.29 * 100 is 28.999999999999996 in floats, and 0.7 * 90 is 62.99999999999999."""
    assert Augmentation(end_fraction=0.29).end(100) == 29
    assert Augmentation(end_fraction=0.7).end(90) == 63
    assert EarlyStopping(start_fraction=0.29).first_epoch(100) == 30
    assert EarlyStopping(start_fraction=0.85).first_epoch(12) == 11  # 10.2 epochs can't be the best
    assert Augmentation(end_fraction=1e-9).end(100) == 0


def test_the_nearest_name_is_offered_and_else_the_possible_ones():
    assert nearest("cosin", ["cosine", "wsd"]) == "Did you mean cosine?"
    assert nearest("zzz", ["cosine", "wsd"]) == "Possible: cosine, wsd."
