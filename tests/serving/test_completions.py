"""Completions by OpenAI's client and by plain HTTP: the texts of `recipes generate`, streamed and whole."""

import contextlib
import http.client
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from recipes.config import Sampling
from recipes.generation.text_generator import TextGenerator, load
from serving.server import app
from serving.server.text_steps import TextSteps
from tests.processes import run_command, wait_until
from tests.serving.conftest import in_process
from tests.serving.looping import counted

PROMPTS = ["The ", "x = 3\n", "A class definition is an executable statement", "0"]


@pytest.fixture(scope="module")
def exported(text_exports):
    """A small language model: its run and the folder of its versions."""
    run, path = text_exports("characters")
    return run, path.parent


@pytest.fixture(scope="module")
def generator(exported):
    """What `recipes generate` runs."""
    return TextGenerator(*load(exported[0]))


def started(folder, **settings):
    """Start a server of the model, without the warm-up, which takes longer than a test."""
    return in_process(model_name="lm", model_base_path=str(folder), enable_model_warmup=False, **settings)


@pytest.fixture(scope="module")
def server(exported):
    """A server of the model."""
    with started(exported[1]) as (server, _):
        yield server


@pytest.fixture(scope="module")
def client(server):
    """OpenAI's client."""
    with client_of(server) as connected:
        yield connected


def client_of(server):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.rest_port}/v1", api_key="any", max_retries=0)


def streamed(client, prompt, **settings):
    """Return the text and the finish reason of a streamed completion."""
    text, reason = "", None
    for chunk in client.completions.create(model="lm", prompt=prompt, stream=True, **settings):
        assert reason is None
        text, reason = text + chunk.choices[0].text, chunk.choices[0].finish_reason
    return text, reason


def expected(generator, prompt, count, seed, **sampling):
    text = generator.generate([prompt], max_new_tokens=count, sampling=Sampling(**sampling), seed=seed)[0]
    return text.removeprefix(prompt)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.0},
        {"temperature": 0.8},
        {"temperature": 1.0, "top_p": 0.9},
        {"temperature": 1.2, "top_k": 7},
        {"temperature": 0.9, "top_k": 12, "top_p": 0.8},
    ],
    ids=str,
)
def test_a_completion_has_the_text_of_the_command_line_whole_and_streamed(client, generator, sampling):
    options = dict(sampling)
    more = {"top_k": options.pop("top_k")} if "top_k" in options else {}
    for seed, prompt in enumerate(PROMPTS):
        settings = {"max_tokens": 40, "seed": seed, "extra_body": more, **options}
        whole = client.completions.create(model="lm", prompt=prompt, **settings)
        text = expected(generator, prompt, 40, seed, **sampling)
        assert (whole.choices[0].text, whole.choices[0].finish_reason) == (text, "length")
        assert streamed(client, prompt, **settings) == (text, "length")
        tokens = len(generator.tokenizer.encode(prompt))
        usage = whole.usage
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (tokens, 40, tokens + 40)


def test_the_command_itself_prints_this_text(client, exported):
    flags = ("--temperature", 0.8, "--top-p", 0.9, "--max-new-tokens", 40, "--seed", 3, "--prompt=The ")
    done = run_command("recipes", "generate", exported[0].path, *flags)
    settings = {"temperature": 0.8, "top_p": 0.9, "max_tokens": 40, "seed": 3, "echo": True}
    assert streamed(client, "The ", **settings)[0] + "\n" == done.stdout


def test_requests_that_join_and_leave_do_not_change_each_others_texts(client, generator):
    """Texts of 8 to 120 tokens, with windows of 24, by 12 callers, each with settings of its own."""

    def call(number):
        prompt, count = PROMPTS[number % len(PROMPTS)], 8 + 16 * (number % 8)
        settings = {"temperature": 0.1 * number, "top_p": 1 - 0.02 * number}
        text, _ = streamed(client, prompt, max_tokens=count, seed=number, **settings)
        return text == expected(generator, prompt, count, number, **settings)

    with ThreadPoolExecutor(12) as callers:
        assert all(callers.map(call, range(24)))


def test_n_completions_of_each_prompt_have_consecutive_seeds(client, generator):
    answer = client.completions.create(model="lm", prompt=PROMPTS[:2], n=3, max_tokens=9, seed=5, echo=True)
    assert [choice.index for choice in answer.choices] == list(range(6))
    texts = [expected(generator, prompt, 9, seed) for prompt in PROMPTS[:2] for seed in (5, 6, 7)]
    echoed = [prompt + text for prompt, text in zip([PROMPTS[0]] * 3 + [PROMPTS[1]] * 3, texts, strict=True)]
    assert [choice.text for choice in answer.choices] == echoed
    assert answer.usage.prompt_tokens == sum(len(generator.tokenizer.encode(each)) for each in PROMPTS[:2])
    assert answer.usage.completion_tokens == 54


def test_without_a_seed_each_completion_is_another(client):
    texts = {
        client.completions.create(model="lm", prompt="The ", max_tokens=40).choices[0].text for _ in "12"
    }
    assert len(texts) == 2


def test_a_stop_sequence_ends_a_completion_before_it(client, generator):
    text = expected(generator, "The ", 60, 0, temperature=0.0)
    stop = text[20:23]
    settings = {"temperature": 0, "max_tokens": 60, "stop": ["never there", stop]}
    assert streamed(client, "The ", **settings) == (text[: text.index(stop)], "stop")
    whole = client.completions.create(model="lm", prompt="The ", **settings)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == (text[: text.index(stop)], "stop")
    assert whole.usage.completion_tokens == text.index(stop) + 3  # a token is a character


def test_the_last_event_has_the_usage_if_it_is_asked_for(client):
    settings = {"max_tokens": 5, "stream": True, "stream_options": {"include_usage": True}}
    *events, last = client.completions.create(model="lm", prompt=["The ", "0"], **settings)
    assert {choice.index for event in events for choice in event.choices} == {0, 1}
    assert (last.choices, last.usage.completion_tokens) == ([], 10)


def post(server, body, path="/v1/completions"):
    """Return the response to a POST."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
    connection.request("POST", path, json.dumps(body) if isinstance(body, dict) else body)
    response = connection.getresponse()
    response.content = response.read()
    connection.close()
    return response


def test_a_stream_is_server_sent_events(server, generator):
    response = post(
        server, {"model": "lm", "prompt": "The ", "max_tokens": 6, "temperature": 0, "stream": True}
    )
    assert response.status == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, done, rest = response.content.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert 1 <= len(chunks) <= 6  # one for each token, or for several if the server is busy
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["length"]
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    assert text == expected(generator, "The ", 6, 0, temperature=0.0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        ({"prompt": None}, 400, "prompt must be a string or a list of strings. Received: null"),
        ({"prompt": [1, 2]}, 400, "prompt must be a string or a list of strings. Received: [1, 2]"),
        ({"prompt": []}, 400, "prompt must be a string or a list of strings. Received: []"),
        ({"prompt": ["a", ""]}, 400, "a text is empty"),
        ({"prompt": "日本"}, 400, "the vocabulary lacks"),
        ({"prompt": "\ud800"}, 400, "The surrogate pair in string is invalid"),
        ({"prompt": ["a"] * 65}, 400, "a request may have at most 64 rows. Received: 65"),
        ({"n": 65}, 400, "a request may have at most 64 rows. Received: 65"),
        ({"n": 0}, 400, "n must be an integer of at least 1. Received: 0"),
        ({"max_tokens": 0}, 400, "max_new_tokens must be 1 to 4096"),
        ({"max_tokens": 2**40}, 400, "max_tokens must be an integer. Received: 1099511627776"),
        ({"max_tokens": 1.5}, 400, "max_tokens must be an integer. Received: 1.5"),
        ({"temperature": -1}, 400, "temperature must be above 0"),
        ({"temperature": 1e300}, 400, "not finite"),
        ({"temperature": True}, 400, "temperature must be a number. Received: true"),
        ({"top_p": 0}, 400, "top_p must be in (0, 1]"),
        ({"seed": 2**63}, 400, "seed must be an integer"),
        ({"stop": ["a", ""]}, 400, "stop must be a string or a list of up to 4, none empty"),
        ({"stop": list("abcde")}, 400, "stop must be"),
        ({"logprobs": 0}, 400, "logprobs is not supported. Received: 0"),
        ({"best_of": 2}, 400, "best_of is not supported. Received: 2"),
        ({"suffix": "x"}, 400, "suffix is not supported"),
        ({"logit_bias": [1, 2]}, 400, "logit_bias is not supported. Received: [1, 2]"),
        ({"functions": []}, 400, "Unrecognized request argument supplied: functions"),
        ({"model": 3}, 400, "model must be a string. Received: 3"),
        ({"model": "foo"}, 404, "Servable not found for request: Latest(foo)"),
        ({"model": "a/b/c"}, 404, "Servable not found for request: Latest(a/b/c)"),
        ({"model": "lm/versions/7"}, 404, "Servable not found for request: Specific(lm, 7)"),
        ({"model": "lm/labels/x"}, 400, "Unrecognized servable version label: x"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_invalid_request_is_refused_in_openais_form(server, stream, changed, status, message):
    response = post(server, {"model": "lm", "prompt": "The ", "max_tokens": 3, "stream": stream, **changed})
    error = json.loads(response.content)["error"]
    assert (response.status, error["type"]) == (status, "invalid_request_error")
    assert message in error["message"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"\xff"])
def test_a_malformed_body_is_refused(server, body):
    response = post(server, body)
    assert (response.status, "JSON" in json.loads(response.content)["error"]["message"]) == (400, True)


def test_parameters_that_change_nothing_are_accepted(client):
    neutral = {"best_of": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "suffix": ""}
    client.completions.create(model="lm", prompt="The ", max_tokens=1, user="me", stop=[], **neutral)


def test_models_are_listed_and_a_version_can_be_named(client):
    assert [model.id for model in client.models.list()] == ["lm"]
    assert client.completions.create(model="lm/versions/1", prompt="0", max_tokens=1).model == "lm/versions/1"


def test_models_that_can_not_stream_say_so_and_do_the_rest(exported, monkeypatch):
    monkeypatch.setattr(TextSteps, "of", lambda loaded: None)  # as an export of an earlier release
    with started(exported[1]) as (server, _):
        response = post(server, {"model": "lm", "prompt": "The ", "stream": True})
        assert response.status == 400
        assert "lm version 1 can't stream text" in json.loads(response.content)["error"]["message"]
        predicted = post(server, {"instances": ["The "]}, "/v1/models/lm:predict")
        assert predicted.status == 200
        with client_of(server) as client, pytest.raises(openai.BadRequestError) as refused:
            client.models.list()
        assert refused.value.body == "Missing model name in request."  # as TensorFlow Serving


@pytest.fixture
def held(monkeypatch):
    """Let steps pass as long as a test allows it."""
    allowed, step = threading.Semaphore(0), TextSteps.step

    def wait(*arguments):
        allowed.acquire()
        return step(*arguments)

    monkeypatch.setattr(TextSteps, "step", wait)
    yield allowed
    allowed.release(10_000)


@contextlib.contextmanager
def reading(server, tokens):
    """Give a connection that has read the first event of a stream, and a function that reads the rest."""
    body = json.dumps({"model": "lm", "prompt": "The ", "max_tokens": tokens, "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=60) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n")
        connection.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        received = b""
        while b"data: " not in received:
            content = connection.recv(1000)
            assert content, received
            received += content

        def rest():
            return received + b"".join(iter(lambda: connection.recv(10_000), b""))

        yield rest


def test_a_stream_whose_reader_leaves_ends_and_frees_its_version(exported, held):
    with started(exported[1]) as (server, _):
        version = server.manager.models["lm"].versions[1]
        held.release(1)
        with reading(server, 4000):
            assert version.users == 1
        wait_until(lambda: version.users == 0)
        wait_until(lambda: counted(server, "REST", "CANCELLED") == (1, 1))
        held.release(3)  # the step under way is the last: the next request is alone
        with client_of(server) as client:
            assert (
                client.completions.create(model="lm", prompt="0", max_tokens=2).usage.completion_tokens == 2
            )


def test_a_stream_ends_at_its_deadline(exported, held):
    with started(exported[1], rest_api_timeout_in_ms=300) as (server, _):
        response = post(server, {"model": "lm", "prompt": "The ", "stream": True})
        assert (response.status, json.loads(response.content)["error"]["message"]) == (504, "Timed out")
        assert counted(server, "REST", "DEADLINE_EXCEEDED") == (1, 1)


def test_a_stream_counts_for_the_limit_of_calls_and_is_counted_once(exported, held):
    with started(exported[1], grpc_max_threads=1) as (server, _):
        held.release(1)
        with reading(server, 3) as rest:
            refused = post(server, {"model": "lm", "prompt": "0"})
            held.release(2)
            assert b"[DONE]" in rest()
        assert (refused.status, json.loads(refused.content)["error"]["type"]) == (429, "rate_limit_error")
        assert counted(server, "REST", "OK") == (1, 1)
        assert counted(server, "REST", "RESOURCE_EXHAUSTED")[0] == 0  # refused before its model is known


def test_draining_waits_for_a_stream(exported, held):
    with started(exported[1]) as (server, await_):
        held.release(1)
        with reading(server, 5) as rest, ThreadPoolExecutor() as threads:
            stopped = threads.submit(await_, server.stop())
            wait_until(lambda: server.calls.closing)
            held.release(4)
            assert b"[DONE]" in rest()
            stopped.result()


def test_an_error_ends_a_stream_that_has_begun(exported, held, monkeypatch):
    monkeypatch.setattr(app, "DRAIN_SECONDS", 0.1)
    with started(exported[1]) as (server, await_):
        held.release(1)
        with reading(server, 4000) as rest:
            await_(server.stop())
            event = rest().decode().partition("\r\n0\r\n")[0].rpartition("data: ")[2]
        error = json.loads(event)["error"]
        assert (error["message"], error["type"]) == ("the server is shutting down", "server_error")
        assert counted(server, "REST", "UNAVAILABLE") == (1, 1)


def test_a_stream_keeps_the_version_that_it_began_with(exported, tmp_path, held):
    folder = tmp_path / "lm"
    folder.mkdir()
    (folder / "1").symlink_to(exported[1] / "1")
    with started(folder, file_system_poll_wait_seconds=0) as (server, await_):
        held.release(1)
        with reading(server, 5) as rest:
            (folder / "2").symlink_to(exported[1] / "1")
            await_(server.manager.poll())
            versions = server.manager.models["lm"].versions
            assert {number: version.state for number, version in versions.items()} == {1: 40, 2: 30}
            held.release(4)
            assert b"[DONE]" in rest()
        wait_until(lambda: versions[1].state == 50)
