"""Texts streamed by gRPC: our clients, the command line, errors."""

import asyncio

import grpc
import numpy as np
import pytest

from recipes.config import Sampling
from recipes.generation.text_generator import TextGenerator, load
from serving.client import AsyncClient, Client, ServingError
from serving.protocol import METHODS
from tests.processes import assert_refused, run_command, wait_until
from tests.serving.conftest import in_process
from tests.serving.looping import counted

COUNT = 30


@pytest.fixture(scope="module")
def exported(text_exports):
    """A small language model: its run and the folder of its versions."""
    run, path = text_exports("characters")
    return run, path.parent


@pytest.fixture(scope="module")
def server(exported, looping):
    """A server of the model."""
    with in_process(model_name="lm", model_base_path=str(exported[1]), enable_model_warmup=False) as (
        started,
        _,
    ):
        yield started


@pytest.fixture
def client(server):
    with Client(f"localhost:{server.port}", timeout=60) as connected:
        yield connected


def inputs(*prompts, **changed):
    rows = len(prompts)
    given = {
        "prompt": np.array([prompt.encode() for prompt in prompts], np.object_),
        "max_new_tokens": np.full(rows, COUNT, np.int32),
        "temperature": np.full(rows, 0.8, np.float32),
        "top_k": np.full(rows, 9, np.int32),
        "top_p": np.full(rows, 0.9, np.float32),
        "seed": np.arange(rows),
    }
    return {**given, **changed}


def texts_of(parts):
    return [b"".join(texts).decode() for texts in zip(*(part["text"] for part in parts), strict=True)]


def test_the_parts_of_a_stream_are_the_text_of_predict_and_of_the_command_line(client, exported):
    prompts = ["The ", "x = 3\n", "0"]
    parts = list(client.generate("lm", **inputs(*prompts)))
    whole = client.predict("lm", signature="generate", **inputs(*prompts))["text"].tolist()
    texts = [prompt + text for prompt, text in zip(prompts, texts_of(parts), strict=True)]
    assert texts == [text.decode() for text in whole]
    generator, sampling = TextGenerator(*load(exported[0])), Sampling(temperature=0.8, top_k=9, top_p=0.9)
    assert texts[1:2] == generator.generate([prompts[1]], max_new_tokens=COUNT, sampling=sampling, seed=1)
    assert parts[-1]["finish_reason"].tolist() == [b"length"] * 3
    assert parts[-1]["completion_tokens"].tolist() == [COUNT] * 3
    assert parts[0]["prompt_tokens"].tolist() == [len(generator.tokenizer.encode(each)) for each in prompts]


def test_texts_of_different_lengths_end_on_their_own(client):
    parts = list(client.generate("lm", **inputs("0", "0", max_new_tokens=np.array([3, 9], np.int32))))
    short, long = texts_of(parts)
    assert (len(short), len(long)) == (3, 9)  # a token is a character
    assert parts[-1]["completion_tokens"].tolist() == [3, 9]


def test_the_client_for_asyncio_streams_too(server, client):
    async def texts():
        async with AsyncClient(f"localhost:{server.port}", timeout=60) as connected:
            return texts_of([part async for part in connected.generate("lm", **inputs("The "))])

    assert asyncio.run(texts()) == texts_of(list(client.generate("lm", **inputs("The "))))


def test_the_command_prints_the_stream(server, exported):
    address = ("--address", f"localhost:{server.port}", "--prompt=The ", "--seed", 4, "--max-new-tokens", 20)
    streamed = run_command("serving", "generate", "--stream", *address)
    assert (streamed.returncode, streamed.stderr) == (0, "")
    assert streamed.stdout == run_command("serving", "generate", *address).stdout
    two = run_command("serving", "generate", "--stream", *address, "--prompt=0")
    assert_refused(two, "error: --stream takes one prompt and no --json. Received: prompts=2")


@pytest.mark.parametrize(
    ("call", "changed", "message"),
    [
        ({"model": "foo"}, {}, "NOT_FOUND: Servable not found for request: Latest.foo."),
        ({"version": 7}, {}, "NOT_FOUND: Servable not found for request: Specific.lm, 7."),
        ({"label": "x"}, {}, "INVALID_ARGUMENT: Unrecognized servable version label: x"),
        ({}, {"temperature": np.float32([-1])}, "INVALID_ARGUMENT: .*temperature must be above 0"),
        (
            {},
            {"temperature": np.float32([[1]])},
            "INVALID_ARGUMENT: Shape of tensor temperature .1,1. is not",
        ),
        ({}, {"temperature": np.float64([1])}, "INVALID_ARGUMENT: Expects arg.*float but double"),
        ({}, {"seed": np.arange(2)}, "INVALID_ARGUMENT: .*as many values"),
        ({}, {"extra": np.arange(1)}, "INVALID_ARGUMENT: input size does not match signature"),
        ({}, {"prompt": [b"x"] * 65}, "INVALID_ARGUMENT: a request may have at most 64 rows. Received: 65"),
        ({}, {"prompt": []}, "INVALID_ARGUMENT: "),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_invalid_request_is_refused(client, call, changed, message):
    with pytest.raises(ServingError, match=message):
        list(client.generate(**{"model": "lm", **call}, **inputs("The ", **changed)))


def test_other_signatures_output_filters_and_malformed_messages_are_refused(server):
    generate = METHODS["Generate"]
    request = generate.request(model_spec={"name": "lm", "signature_name": "score"})
    filtered = generate.request(model_spec={"name": "lm"}, output_filter=["text"])
    for content, code, text in (
        (request.SerializeToString(), "FAILED_PRECONDITION", "Generate runs the signature generate"),
        (filtered.SerializeToString(), "INVALID_ARGUMENT", "Generate has no output_filter"),
        (generate.request().SerializeToString(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (b"\xff", "INTERNAL", ""),
    ):
        with grpc.insecure_channel(f"localhost:{server.port}") as channel:
            with pytest.raises(grpc.RpcError) as refused:
                list(channel.unary_stream(generate.path)(content, timeout=60))
            assert refused.value.code().name == code
            assert text in refused.value.details()


def test_a_model_of_another_kind_says_that_it_streams_no_text(looping):
    with (
        in_process(model_name="looping", model_base_path=str(looping)) as (server, _),
        Client(f"localhost:{server.port}", timeout=60) as client,
        pytest.raises(ServingError, match="FAILED_PRECONDITION: Model looping version 1 can't stream text"),
    ):
        list(client.generate("looping", **inputs("The ")))


def test_a_stream_that_is_not_read_to_its_end_is_cancelled(server, client):
    before = counted(server, "GRPC", "CANCELLED")
    parts = client.generate("lm", **inputs("The ", max_new_tokens=np.array([4096], np.int32)))
    assert next(parts)["text"][0]
    parts.close()
    wait_until(lambda: counted(server, "GRPC", "CANCELLED")[0] == before[0] + 1)
    wait_until(lambda: server.manager.models["lm"].versions[1].users == 0)
