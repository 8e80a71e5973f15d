import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from recipes.config import UserError
from recipes.runs.directory import Run
from recipes.runs.opening import create
from serving import export as exporting
from serving.export import compare, export, publish
from serving.server.servable import Servable
from tests.processes import start_command, wait_until
from tests.serving.conftest import diverged_copy


def test_the_contract_of_an_export(exported, run):
    assert exported.parts[-2:] == ("mnist", "1")
    signatures = tf.saved_model.load(str(exported)).signatures
    image = signatures["serving_default"].structured_input_signature[1]["image"]
    assert (image.shape.as_list(), image.dtype) == ([None, 28, 28, 1], tf.float32)
    for signature in ("serving_default", "encoded"):
        outputs = signatures[signature].structured_outputs
        assert outputs["probabilities"].shape.as_list() == [None, 10]
        assert outputs["label"].dtype == tf.int64
    recipe = json.loads((exported / "assets.extra" / "recipe.json").read_text())
    assert recipe["metrics"] == run.metrics
    assert recipe["config"]["recipe"] == "mnist-cnn"
    assert recipe["limits"] == {"rows": 1024, "pixels_per_image": 2**24, "pixels": 2**27}


def test_each_weight_is_stored_once(exported, run):
    stored = sum(path.stat().st_size for path in (exported / "variables").iterdir())
    assert stored < 1.15 * 4 * run.metrics["parameters"] + 4000


def test_warm_up_requests_are_there_for_each_signature(exported):
    servable = Servable("mnist", 1, exported)
    try:
        assert servable.warm_up() == 4  # two sizes of each of the two signatures
    finally:
        servable.close()


def test_versions_count_up_and_one_that_is_taken_is_refused(run, tmp_path):
    assert export(run, tmp_path).path.name == "1"
    assert export(run, tmp_path, version=7).path.name == "7"
    assert export(run, tmp_path).path.name == "8"
    with pytest.raises(UserError, match=r"mnist/7 exists"):
        export(run, tmp_path, version=7)
    with pytest.raises(UserError, match="at least 1. Received: version=0"):
        export(run, tmp_path, version=0)
    assert export(run, tmp_path, name="digits").path.parts[-2:] == ("digits", "1")
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == ["1", "7", "8"]


def test_concurrent_exports_take_different_versions(tmp_path):
    def one(number):
        folder = tmp_path / f".export-{number}"
        folder.mkdir()
        (folder / "saved_model.pb").write_text(str(number))
        publish(folder, tmp_path, None)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in tmp_path.iterdir()) == list("12345678")
    assert {(tmp_path / str(v) / "saved_model.pb").read_text() for v in range(1, 9)} == set(
        map(str, range(8))
    )


def test_a_recipe_whose_models_can_not_be_exported_is_refused_by_name(tmp_path):
    run = create(tmp_path / "run", {"recipe": "seq2seq-reverse"}, {})
    run.finish({"recipe": "seq2seq-reverse"})
    with pytest.raises(UserError, match=r"is a run of seq2seq-reverse, whose models can't be exported"):
        export(run, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_an_unfinished_run_is_not_exported(tmp_path):
    run = create(tmp_path / "run", {"recipe": "mnist-cnn"}, {})
    with pytest.raises(UserError, match="not a finished run"):
        export(run, tmp_path / "models")
    assert not (tmp_path / "models").exists()
    with pytest.raises(UserError, match="not a run directory"):
        export(Run(tmp_path / "nowhere"), tmp_path / "models")


def test_a_mismatch_is_an_error_and_publishes_nothing(run, tmp_path, monkeypatch):
    made = exporting.exportable

    def wrong(run):
        servable = made(run)
        servable.cases["serving_default"].outputs["probabilities"] += 2e-5
        return servable

    monkeypatch.setattr(exporting, "exportable", wrong)
    with pytest.raises(ValueError, match="not published: signature serving_default differs .* by 2e-05"):
        export(run, tmp_path)
    assert not list((tmp_path / "mnist").iterdir())


@pytest.mark.parametrize("place", ["probabilities", "label"])
def test_a_difference_that_is_nan_is_an_error_whichever_output_has_it(exported, images, place):
    answers = tf.saved_model.load(str(exported)).signatures["serving_default"](image=tf.constant(images))
    outputs = {name: value.numpy() for name, value in answers.items()}
    outputs[place] = np.full(outputs[place].shape, np.nan)
    for order in (list(outputs), list(reversed(outputs))):
        case = exporting.Case({"image": images}, {name: outputs[name] for name in order})
        with pytest.raises(ValueError, match="not published: signature serving_default differs .* by nan"):
            compare(exported, {"serving_default": case})


def test_a_model_with_nan_outputs_is_refused_in_one_line_and_nothing_is_published(run, tmp_path):
    diverged = diverged_copy(run, tmp_path)
    with pytest.raises(UserError) as refused:
        export(diverged, tmp_path / "models")
    assert str(refused.value) == (
        f"{diverged.path} can't be exported: "
        "probabilities of its signature serving_default has values that are not finite"
    )
    assert not (tmp_path / "models").exists()


def test_folders_of_killed_exports_are_removed_and_of_running_ones_are_not(run, tmp_path):
    base = tmp_path / "mnist"
    left = base / ".export-left" / "export"
    left.mkdir(parents=True)
    (left / "saved_model.pb").write_text("half of it")
    with exporting.temporary_folder(base) as first, exporting.temporary_folder(base) as second:
        (first / "export").mkdir()
        assert export(run, tmp_path).path.name == "1"
        assert sorted(path.name for path in base.iterdir()) == sorted(["1", first.name, second.name])
    assert [path.name for path in base.iterdir()] == ["1"]


def test_exports_that_start_at_once_do_not_remove_each_others_folders(tmp_path):
    def one(_):
        for _ in range(20):
            with exporting.temporary_folder(tmp_path) as folder:
                (folder / "file").write_text("")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    assert not list(tmp_path.iterdir())


def test_sigterm_leaves_no_temporary_folder(run, tmp_path):
    errors = tmp_path / "errors"
    process = start_command("serving", "export", run.path, "--models", tmp_path, stderr=errors)
    wait_until(lambda: list(tmp_path.glob("mnist/.export-*")) or process.poll() is not None)
    process.terminate()
    assert process.wait(60) == 130
    _, said = errors.read_text().splitlines()  # the first line says what the export does
    assert said == "interrupted"
    assert not list((tmp_path / "mnist").iterdir())


def test_an_export_is_flushed_to_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "rename", lambda old, new: (rename(old, new), done.append(str(new))))
    folder = tmp_path / ".export-x"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text("graph")
    (folder / "variables" / "data").write_text("weights")
    everything = {str(folder), *map(str, folder.rglob("*"))}
    publish(folder, tmp_path, None)
    assert set(done[:-2]) == everything
    assert done[-2:] == [str(tmp_path / "1"), str(tmp_path)]


def test_the_difference_is_the_largest_over_all_outputs(exported, images):
    answers = tf.saved_model.load(str(exported)).signatures["serving_default"](image=tf.constant(images))
    outputs = {name: value.numpy() for name, value in answers.items()}
    outputs["probabilities"][3, 4] += 5e-6
    case = exporting.Case({"image": images}, outputs)
    assert compare(exported, {"serving_default": case})["serving_default"] == pytest.approx(5e-6, rel=0.05)


@pytest.mark.parametrize(
    "image",
    [np.zeros((1, 28, 28)), np.zeros((28,)), np.zeros((0, 28, 28, 1)), np.full((1, 28, 28, 1), np.nan)],
)
def test_the_graph_itself_refuses_what_would_abort_a_server(exported, image):
    signature = tf.saved_model.load(str(exported)).signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError):
        signature(image=tf.constant(image, tf.float32))
