"""Continuous batching with steps that a test controls: texts join, leave, end and fail."""

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.server import text_batch
from serving.server.errors import invalid_argument
from serving.server.metrics import Metrics
from serving.server.text_batch import Text, TextBatch


def generated(tokens: list[bytes], stop: list[str]) -> tuple[list[str], str, int]:
    """Return the parts of a text, why it ended, and the number of its tokens."""
    text, parts = Text(np.zeros(len(tokens)), (), len(tokens), stop), []
    for token in tokens:
        text.add(token)
        parts.append(text.take())
        if text.finished:
            break
    return parts, text.finished, text.tokens


def test_a_character_is_sent_when_its_last_byte_is_there():
    tokens = [b"a", "é".encode()[:1], "é".encode()[1:], b"\xff", "€".encode()[:2]]
    assert generated(tokens, [])[0] == ["a", "", "é", "�", "�"]


def test_what_may_be_the_start_of_a_stop_sequence_is_held_back():
    assert generated([b"x", b"a", b"a", b"b", b"!"], ["aab"]) == (["x", "", "", ""], "stop", 4)
    assert generated([b"a", b"a", b"a", b"c", b"a"], ["aab"]) == (["", "", "a", "aac", "a"], "length", 5)


@given(
    st.lists(st.text("abé€", min_size=1, max_size=3), min_size=1, max_size=20),
    st.lists(st.text("abé€", min_size=1, max_size=3), max_size=3),
    st.integers(1, 4),
)
def test_a_text_ends_before_the_first_stop_sequence_that_a_token_completes(words, stop, size):
    content = "".join(words).encode()
    tokens = [content[start : start + size] for start in range(0, len(content), size)]
    parts, finished, count = generated(tokens, stop)
    for number in range(1, len(tokens) + 1):
        known = b"".join(tokens[:number]).decode(errors="ignore")
        places = [place for each in stop if (place := known.find(each)) >= 0]
        if places:
            assert ("".join(parts), finished, count) == (known[: min(places)], "stop", number)
            return
    assert ("".join(parts), finished, count) == (content.decode(), "length", len(tokens))


class Steps:
    """Functions of a model whose token is the first letter of the prompt, for as long as the test allows.

    Attributes:
        batches: The letters of each step.
    """

    def __init__(self) -> None:
        self.batches: list[str] = []
        self.allowed = threading.Semaphore(0)
        self.error: Exception | None = None

    def read(self, inputs, cancellation):
        if b"" in inputs["prompt"]:
            raise invalid_argument("a text is empty")
        count = inputs["max_new_tokens"].max()
        letters = np.array([ord(prompt[:1]) for prompt in inputs["prompt"]])
        return np.ones(len(letters), np.int32), np.zeros((len(letters), count)), [letters]

    def step(self, draws, settings, state):
        self.allowed.acquire()
        if self.error is not None:
            raise self.error
        letters = [chr(letter).encode() for letter in np.array(state[0])]
        self.batches.append(b"".join(letters).decode())
        return letters, state


@pytest.fixture
def steps():
    return Steps()


@contextlib.asynccontextmanager
async def started(steps):
    """Give a batch of these steps, and end it."""
    with ThreadPoolExecutor(2) as threads:
        servable = SimpleNamespace(name="lm", version=1, threads=threads)
        batch = TextBatch(servable, steps, Metrics())
        yield batch
        batch.close()


def inputs(prompts: str, count: int):
    rows = len(prompts)
    return {
        "prompt": np.array([prompt.encode() for prompt in prompts], np.object_),
        "max_new_tokens": np.full(rows, count, np.int32),
        "temperature": np.ones(rows, np.float32),
        "top_k": np.zeros(rows, np.int32),
        "top_p": np.ones(rows, np.float32),
    }


async def texts_of(batch, prompts, count, stop=()):
    """Return the texts of a request."""
    texts = [""] * len(prompts)
    async with batch.generate(inputs(prompts, count), stop) as generation:
        async for part in generation.parts():
            texts = [text + more.decode() for text, more in zip(texts, part["text"], strict=True)]
    return texts


async def until(holds):
    while not holds():
        await asyncio.sleep(0.001)


def test_requests_join_and_leave_between_steps(steps):
    async def scenario():
        async with started(steps) as batch:
            long = asyncio.create_task(texts_of(batch, "a", 6))
            steps.allowed.release(2)
            await until(lambda: len(steps.batches) == 2)
            short = asyncio.create_task(texts_of(batch, "bc", 2))
            await until(lambda: batch._joining)
            steps.allowed.release(3)  # the step that waits has begun without them
            assert await short == ["bb", "cc"]
            assert not long.done()
            steps.allowed.release(1)
            assert await long == ["aaaaaa"]

    asyncio.run(scenario())
    assert steps.batches == ["a", "a", "a", "abc", "abc", "a"]


def test_a_text_that_has_ended_leaves_the_others_of_its_request(steps):
    async def scenario():
        async with started(steps) as batch:
            steps.allowed.release(4)
            return await texts_of(batch, "xy", 4, stop=["yy"])

    assert asyncio.run(scenario()) == ["xxxx", ""]
    assert steps.batches == ["xy", "xy", "x", "x"]


def test_a_request_whose_reader_left_leaves_at_the_next_step(steps):
    async def scenario():
        async with started(steps) as batch:
            kept, left = (asyncio.create_task(texts_of(batch, prompt, 9)) for prompt in "kl")
            await until(lambda: batch._under_way == 2 and batch._running)
            steps.allowed.release(3)
            await until(lambda: len(steps.batches) == 3)
            left.cancel()
            await asyncio.wait((left,))
            steps.allowed.release(20)
            assert await kept == ["k" * 9]
            assert batch._under_way == 0

    asyncio.run(scenario())
    assert all(batch == "k" for batch in steps.batches[4:])


def test_a_reader_that_does_not_read_holds_nobody(steps):
    async def scenario():
        async with started(steps) as batch, batch.generate(inputs("s", 5), ()) as slow:
            steps.allowed.release(100)
            assert await texts_of(batch, "f", 20) == ["f" * 20]
            return [part["text"].tolist() async for part in slow.parts()]

    assert asyncio.run(scenario()) == [[b"sssss"]]


def test_a_failed_step_fails_its_requests_and_the_next_one_is_answered(steps):
    async def scenario():
        async with started(steps) as batch:
            calls = [asyncio.create_task(texts_of(batch, prompt, 3)) for prompt in "ab"]
            await until(lambda: batch._under_way == 2 and batch._running)
            steps.error = ZeroDivisionError()
            steps.allowed.release(9)
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(result) for result in results] == [ZeroDivisionError] * 2
            steps.error = None
            return await texts_of(batch, "c", 2)

    assert asyncio.run(scenario()) == ["cc"]


def test_a_refused_request_fails_alone(steps):
    async def scenario():
        async with started(steps) as batch:
            steps.allowed.release(9)
            good = asyncio.create_task(texts_of(batch, "g", 3))
            with pytest.raises(Exception, match="a text is empty"):
                async with batch.generate({**inputs("b", 3), "prompt": np.array([b""], np.object_)}, ()):
                    pass
            return await good

    assert asyncio.run(scenario()) == ["ggg"]


def test_requests_wait_for_places_in_their_order(steps, monkeypatch):
    monkeypatch.setattr(text_batch, "MAX_TEXTS", 3)

    async def scenario():
        async with started(steps) as batch:
            calls = []
            for prompts in ("ab", "cd", "e"):  # "e" would fit beside the first, but "cd" was there before it
                calls.append(asyncio.create_task(texts_of(batch, prompts, 2)))
                await asyncio.sleep(0)
            steps.allowed.release(99)
            return await asyncio.gather(*calls)

    assert asyncio.run(scenario()) == [["aa", "bb"], ["cc", "dd"], ["ee"]]
    assert steps.batches[0] == "ab"
    assert all(len(batch) <= 3 for batch in steps.batches)
