"""Language models: the graph's tokenizers equal Python's, the export equals the command line."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.config import Sampling, UserError
from recipes.data.tokenizers import BytePairTokenizer, ByteTokenizer, CharacterTokenizer
from recipes.generation.text_generator import TextGenerator, load
from recipes.runs.directory import Run
from serving.client import Client, ServingError
from serving.export import export
from serving.signatures.tokenizers import Bytes, decode, guard_text, in_graph
from tests.processes import assert_refused, run_command
from tests.serving.conftest import diverged_copy, start_server

VERSE = (
    "To be, or not to be: that is the question:\nWhether 'tis nobler in the mind to suffer 100 slings\n" * 20
)
BPE = BytePairTokenizer.train([VERSE + "aaaaaaa      \n\n\n" * 40], 340)
CHARACTERS = CharacterTokenizer("".join(sorted(set(VERSE) | set("é€😀\0\t"))))
VALID = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1)


def graph_ids(tokenizer, texts: list[str]) -> list[list[int]]:
    return in_graph(tokenizer).encode(tf.constant([text.encode() for text in texts])).to_list()


@settings(max_examples=200, deadline=None)
@given(st.lists(VALID, min_size=1, max_size=4))
def test_bytes_and_byte_pairs_in_the_graph_give_the_ids_of_python(texts):
    for tokenizer in (ByteTokenizer(), BPE):
        assert graph_ids(tokenizer, texts) == [tokenizer.encode(text).tolist() for text in texts]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(alphabet="toben qsiaeuhr,:'\n01a ", min_size=1, max_size=60), min_size=1, max_size=4))
def test_byte_pairs_of_text_like_their_own_give_the_ids_of_python(texts):
    assert graph_ids(BPE, texts) == [BPE.encode(text).tolist() for text in texts]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(alphabet=CHARACTERS.characters, min_size=1), min_size=1, max_size=4))
def test_characters_in_the_graph_give_the_ids_of_python(texts):
    assert graph_ids(CHARACTERS, texts) == [CHARACTERS.encode(text).tolist() for text in texts]


def test_runs_of_one_letter_merge_from_the_left():
    text = "aaaaa aaaaaaaaaaaaa      \n\n\n\n\n"
    assert graph_ids(BPE, [text]) == [BPE.encode(text).tolist()]


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=1))
def test_bytes_that_are_not_utf8_are_refused_and_all_others_pass(content):
    try:
        content.decode()
    except UnicodeDecodeError:
        with pytest.raises(tf.errors.InvalidArgumentError, match="not UTF-8"):
            guard_text(tf.constant([content]), 1000, 1000)
    else:
        assert guard_text(tf.constant([content]), 1000, 1000).numpy().tolist() == [content]


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=1))
def test_generated_bytes_become_text_as_in_python(content):
    ids = Bytes().encode(tf.constant([content])).to_tensor()
    written = decode(list(ByteTokenizer().tokens), ids, tf.constant([len(content)]))
    valid = tf.strings.unicode_transcode(written, "UTF-8", "UTF-8", replace_control_characters=False)
    assert valid.numpy()[0].decode() == content.decode(errors="replace")


def test_a_language_model_with_nan_outputs_is_refused(text_exports, tmp_path):
    diverged = diverged_copy(text_exports("characters")[0], tmp_path)
    with pytest.raises(UserError, match="its output has values that are not finite"):
        export(diverged, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@dataclasses.dataclass
class Served:
    run: Run
    path: Path
    generator: TextGenerator
    client: Client
    address: str
    rest: str


@pytest.fixture(
    scope="module",
    params=["characters", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bpe", "bytes", "lstm"))],
)
def served(request, text_exports, tmp_path_factory):
    """Each kind of tokenizer, and a recurrent model, behind a server."""
    run, path = text_exports(request.param)
    flags = ["--model_name=lm", f"--model_base_path={path.parent}", "--enable_batching=true"]
    server = start_server(tmp_path_factory.mktemp("server") / "log", *flags)
    with Client(server.address, timeout=60) as client:
        yield Served(run, path, TextGenerator(*load(run)), client, server.address, server.rest)
    assert server.stop() == 0


PROMPTS = [
    "The ",
    "d",
    "A class definition is an executable statement that may contain: decorators",
    "x = 3\n",
    "    def f(a, b):\n        return a + b\n",
    "See section",
    "0",
    "import ",
]


def ask(served: Served, prompts: list[str], count: int = 40, **changed) -> list[str]:
    rows = len(prompts)
    inputs = {
        "prompt": np.array([prompt.encode() for prompt in prompts], np.object_),
        "max_new_tokens": np.full(rows, count, np.int32),
        "temperature": np.zeros(rows, np.float32),
        "top_k": np.zeros(rows, np.int32),
        "top_p": np.ones(rows, np.float32),
        "seed": np.zeros(rows, np.int64),
    }
    answer = served.client.predict("lm", signature="generate", **{**inputs, **changed})
    return [text.decode() for text in answer["text"].tolist()]


def test_greedy_text_by_grpc_is_that_of_the_command_line_one_prompt_or_sixteen(served):
    prompts = PROMPTS * 2
    together = ask(served, prompts)
    greedy = Sampling(temperature=0.0)
    assert together == served.generator.generate(prompts, max_new_tokens=40, sampling=greedy, seed=0)
    assert together[:8] == together[8:]
    assert [ask(served, [prompt])[0] for prompt in PROMPTS] == together[:8]
    flags = (
        "--temperature",
        0,
        "--max-new-tokens",
        40,
        "--json",
        *(f"--prompt={prompt}" for prompt in PROMPTS),
    )
    done = run_command("recipes", "generate", served.run.path, *flags)
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == together[:8]


def test_a_row_depends_only_on_its_own_settings(served):
    rows = len(PROMPTS)
    mixed = {
        "temperature": np.linspace(0, 2, rows).astype(np.float32),
        "top_k": np.arange(rows).astype(np.int32),
        "top_p": np.linspace(0.3, 1, rows).astype(np.float32),
        "seed": np.arange(rows),
        "max_new_tokens": (10 + 7 * np.arange(rows)).astype(np.int32),
    }
    together = ask(served, PROMPTS, **mixed)
    for number, prompt in enumerate(PROMPTS):
        alone = {name: values[number : number + 1] for name, values in mixed.items()}
        assert ask(served, [prompt], **alone) == [together[number]]
        sampling = Sampling(**{name: alone[name][0].item() for name in ("temperature", "top_k", "top_p")})
        written = served.generator.generate(
            [prompt], max_new_tokens=10 + 7 * number, sampling=sampling, seed=number
        )
        assert written == [together[number]]


def test_scores_are_those_of_the_model_summed_over_the_tokens(served):
    texts = [prompt.encode() for prompt in PROMPTS]
    answer = served.client.predict("lm", signature="score", text=np.array(texts, np.object_))
    tokens = [len(served.generator.tokenizer.encode(prompt)) for prompt in PROMPTS]
    assert answer["token_count"].tolist() == [count - 1 for count in tokens]
    alone = [
        served.client.predict("lm", signature="score", text=np.array([text], np.object_))["log_likelihood"][0]
        for text in texts
    ]
    np.testing.assert_allclose(answer["log_likelihood"], alone, rtol=1e-5, atol=1e-5)
    assert (answer["log_likelihood"][answer["token_count"] > 0] < 0).all()


def test_the_default_signature_completes_a_prompt(served):
    texts = served.client.predict("lm", prompt=np.array([b"The "], np.object_))["text"].tolist()
    assert texts[0].startswith(b"The ")
    assert len(served.generator.tokenizer.encode(texts[0].decode())) > 150


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prompt": [b""]}, "a text is empty"),
        ({"prompt": [b"\xff\xfe"]}, "not UTF-8"),
        ({"prompt": [b"x" * 70_000]}, "at most 65536 bytes"),
        ({"max_new_tokens": [0]}, "max_new_tokens must be 1 to 4096"),
        ({"max_new_tokens": [5000]}, r"5000"),
        ({"temperature": [-1.0]}, "exactly 0 .greedy.. Received:. .-1"),
        ({"temperature": [float("nan")]}, "not finite"),
        ({"top_p": [0.0]}, r"top_p must be in \(0, 1\]"),
        ({"top_p": [1.5]}, "1.5"),
        ({"top_k": [-3]}, "-3"),
        ({"seed": [1, 2]}, "as many values"),
    ],
)
def test_invalid_requests_are_refused_and_the_server_continues(served, changed, message):
    kinds = {"prompt": np.object_, "max_new_tokens": np.int32, "top_k": np.int32, "seed": np.int64}
    changed = {name: np.array(value, kinds.get(name, np.float32)) for name, value in changed.items()}
    with pytest.raises(ServingError, match=f"(?s)INVALID_ARGUMENT.*{message}"):
        ask(served, ["The "], **changed)
    assert ask(served, ["The "], 1)[0].startswith("The ")


def test_characters_that_the_vocabulary_lacks_are_shown(served):
    if served.run.metrics["tokenizer"] != "characters":
        assert ask(served, ["日本"], 2)[0].startswith("日本")
        return
    with pytest.raises(ServingError, match="the vocabulary lacks.*日"):
        ask(served, ["日本"])


def test_each_weight_is_stored_once_and_the_metrics_are_recorded(served):
    stored = sum(file.stat().st_size for file in (served.path / "variables").iterdir())
    assert stored < 1.15 * 4 * served.run.metrics["parameters"] + 8000
    recipe = json.loads((served.path / "assets.extra" / "recipe.json").read_text())
    assert recipe["metrics"] == served.run.metrics


def test_generate_on_the_command_line(served):
    command = ("serving", "generate", "--address", served.address, "--temperature", 0)
    done = run_command(*command, "--max-new-tokens", 12, "--prompt", "The ")
    assert done.stdout == ask(served, ["The "], 12)[0] + "\n"
    assert_refused(run_command(*command, "--top-p", 2), "error: top_p must be in (0, 1]")


def test_the_page_completes_a_prompt_and_hides_the_digit_half(page, served):
    page.goto(served.rest)
    page.wait_for_selector("#digit", state="hidden")
    page.get_by_label("Prompt").fill("The class")
    page.get_by_label("Tokens").fill("40")
    page.get_by_label("Temperature").fill("0")
    page.get_by_role("button", name="Generate").click()
    page.wait_for_function("document.getElementById('text_status').textContent.startsWith('40 tokens in')")
    assert page.locator("#completion").inner_text() == ask(served, ["The class"])[0]
    assert page.locator("#completion b").inner_text() == "The class"


def test_the_page_shows_the_characters_that_the_model_lacks(page, served):
    if served.run.metrics["tokenizer"] != "characters":
        pytest.skip("bytes know every text")
    page.goto(served.rest)
    page.get_by_label("Prompt").fill("日本")
    page.get_by_role("button", name="Generate").click()
    page.wait_for_selector("#text_status.error")
    assert "the vocabulary lacks" in page.locator("#text_status").inner_text()


def test_the_pages_text_half_fits_a_phone(browser, served):
    with browser.new_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True) as phone:
        phone.goto(served.rest)
        phone.wait_for_selector("#digit", state="hidden")
        assert phone.evaluate("document.documentElement.scrollWidth") <= 360
