"""The files of examples/: run shrunken, and, slow, as they are on real data."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

EXAMPLES = Path(__file__).parents[1] / "examples"


def load_example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # TensorFlow's AutoGraph looks a function's module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("in_empty_folder")
def test_mnist_learns_the_small_digits_and_saves_a_model(monkeypatch):
    mnist = load_example("mnist")
    digits = load_digits()
    images = np.repeat(np.repeat(digits.images, 3, axis=1), 3, axis=2)  # (n, 24, 24)
    images = np.pad(images * (255 / 16), [[0, 0], [2, 2], [2, 2]])[..., np.newaxis].astype(np.uint8)
    train, test = slice(0, 1400), slice(1400, None)
    parts = [(images[part], digits.target[part]) for part in (train, test)]
    monkeypatch.setattr(mnist, "load_data", lambda: parts)
    accuracy = mnist.main(epochs=8)
    assert accuracy > 0.85
    saved = keras.models.load_model("mnist.keras")  # needs nothing of the file that made it
    probabilities = saved.predict(images[test], verbose=0)
    assert (probabilities.argmax(axis=1) == digits.target[test]).mean() == pytest.approx(accuracy, abs=1e-6)


@pytest.fixture
def shakespeare(monkeypatch) -> ModuleType:
    module = load_example("shakespeare")
    for name, size in {"CONTEXT": 16, "WIDTH": 16, "BLOCKS": 1, "STEPS_PER_EPOCH": 50}.items():
        monkeypatch.setattr(module, name, size)
    return module


# Keras does not compile with XLA where an earlier test of this process made operations deterministic.
@pytest.mark.filterwarnings("ignore:Model doesn't support `jit_compile=True`")
@pytest.mark.usefixtures("in_empty_folder")
def test_shakespeare_learns_a_text_that_repeats_itself(shakespeare, monkeypatch):
    text = "aabbccdde"  # of odd length: windows of 16 begin at each of its characters
    monkeypatch.setattr(shakespeare, "load_text", lambda: [text * 450, text * 20, text * 20])
    loss = shakespeare.main(epochs=2)
    assert loss < 0.1 < 8 / 9 * np.log(2)  # nats per character; what one character alone gives


def test_the_cache_gives_what_reading_everything_again_gives(shakespeare):
    """Greedy samples: the likeliest character after the same window, whether it was cached or not."""
    model = shakespeare.LanguageModel(9)
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:  # the head starts at 0
        variable.assign(random.normal(size=variable.shape))
    prompt = [1, 2, 3]
    sampled = shakespeare.sample(model, prompt, 40, temperature=1e-6)
    expected, start = list(prompt), 0
    for _ in range(40):
        if len(expected) - start > shakespeare.CONTEXT:
            start = len(expected) - shakespeare.CONTEXT // 2
        logits = keras.ops.convert_to_numpy(model(np.array([expected[start:]])))
        expected.append(int(logits[0, -1].argmax()))
    assert sampled == expected


@pytest.mark.slow
@pytest.mark.real_mnist
@pytest.mark.usefixtures("in_empty_folder")
def test_mnist_reaches_its_accuracy():
    """99.55 % with seed 0."""
    assert load_example("mnist").main() >= 0.9935


@pytest.mark.slow
@pytest.mark.real_mnist
@pytest.mark.usefixtures("in_empty_folder")
def test_shakespeare_reaches_its_loss():
    assert load_example("shakespeare").main() <= 1.47
