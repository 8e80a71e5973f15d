"""Continuous batching: one batch generates the texts of all requests to a version, a token of each in every step.

Requests join and leave between steps, so a short text does not wait for a long one. The texts do not depend on each
other, and a slow reader does not hold the batch.
"""

import asyncio
import codecs
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tensorflow.python.eager.cancellation import CancellationManager

from serving.server.metrics import Metrics
from serving.server.servable import Servable
from serving.server.text_steps import SETTINGS, State, TextSteps, join, leave_out
from serving.tensors import Array, Arrays

MAX_TEXTS = 64
"""Most texts under way; others wait. Each needs the memory of its cache, 1 to 5 MB in a Transformer of the catalog."""
LENGTH, STOP = "length", "stop"


class Text:
    """A text under way.

    Args:
        draws: A random number for each of its tokens.
        settings: The values of SETTINGS.
        count: Tokens to generate.
        stop: Texts that end it, without them.

    Attributes:
        tokens: Tokens generated so far.
        finished: Why it has ended: LENGTH or STOP; empty while it is under way.
    """

    def __init__(self, draws: Array, settings: Sequence[float], count: int, stop: Sequence[str]) -> None:
        self.draws = draws
        self.settings = settings
        self.tokens = 0
        self.finished = ""
        self._count = count
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._ready = ""
        self._held = ""

    def add(self, token: bytes) -> None:
        """Add a token. What may be the start of a stop text is held back."""
        self.tokens += 1
        last = self.tokens == self._count
        self._held += self._decoder.decode(token, last)
        found = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if found:
            self.finished, ready = STOP, min(found)
        elif last:
            self.finished, ready = LENGTH, len(self._held)
        else:
            ready = len(self._held) - max((_overlap(self._held, stop) for stop in self._stop), default=0)
        self._ready += self._held[:ready]
        self._held = self._held[ready:]

    def take(self) -> str:
        """Return what is ready since the last call."""
        ready, self._ready = self._ready, ""
        return ready


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of a text that is a start of another."""
    return next(size for size in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:size]))


class Generation:
    """The texts of a request.

    Args:
        texts: The texts.
        prompt_tokens: The number of tokens of each prompt, int32 (n,).
    """

    def __init__(self, texts: Sequence[Text], prompt_tokens: Array) -> None:
        self.texts = texts
        self.left = False
        self._prompt_tokens = prompt_tokens
        self._news = asyncio.Event()
        self._error: BaseException | None = None

    def notify(self, error: BaseException | None = None) -> None:
        """Wake the reader, with an error if the texts can't be continued."""
        self._error = error
        self._news.set()

    async def parts(self) -> AsyncIterator[Arrays]:
        """Give the next parts of all texts until the last one has ended, each as arrays (n,).

        - `text` string: what is new;
        - `finish_reason` string: `length` or `stop` once a text has ended, before that empty;
        - `prompt_tokens` and `completion_tokens` int32: tokens of the prompt, and generated so far.
        """
        finished = False
        while not finished:
            await self._news.wait()
            self._news.clear()
            if self._error is not None:
                raise self._error
            reasons = [text.finished for text in self.texts]
            finished = all(reasons)
            new = [text.take() for text in self.texts]
            if any(new) or finished:
                yield {
                    "text": np.array([part.encode() for part in new], np.object_),
                    "finish_reason": np.array([reason.encode() for reason in reasons], np.object_),
                    "prompt_tokens": self._prompt_tokens,
                    "completion_tokens": np.array([text.tokens for text in self.texts], np.int32),
                }


class TextBatch:
    """Generates the texts of all requests to a version, in one event loop.

    Args:
        servable: The version.
        steps: Its functions.
        metrics: Counts the runs.
    """

    def __init__(self, servable: Servable, steps: TextSteps, metrics: Metrics) -> None:
        self._servable = servable
        self._steps = steps
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, f"{servable.name}-{servable.version}-text")
        self._first = asyncio.Lock()
        self._ended = asyncio.Event()
        self._under_way = 0
        self._joining: list[tuple[Generation, State]] = []
        self._running: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def generate(self, inputs: Arrays, stop: Sequence[str]) -> AsyncIterator[Generation]:
        """Give the texts of a request; at the end of the context those under way leave the batch.

        Args:
            inputs: The inputs of the signature `generate`, by name.
            stop: Texts that end a text.

        Raises:
            StatusError: The graph refuses the inputs.
        """
        async with self._place(len(inputs["prompt"])):
            generation, state = await self._read(inputs, stop)
            self._joining.append((generation, state))
            if self._running is None:
                self._running = asyncio.create_task(self._run())
            try:
                yield generation
            finally:
                generation.left = True

    @contextlib.asynccontextmanager
    async def _place(self, size: int) -> AsyncIterator[None]:
        """Wait until the batch has a place for texts: first come, first served."""
        async with self._first:
            while self._under_way and self._under_way + size > MAX_TEXTS:
                self._ended.clear()
                await self._ended.wait()
            self._under_way += size
        try:
            yield
        finally:
            self._under_way -= size
            self._ended.set()

    async def _read(self, inputs: Arrays, stop: Sequence[str]) -> tuple[Generation, State]:
        """Read the prompts, beside the steps of the batch."""
        cancellation = CancellationManager()
        loop = asyncio.get_running_loop()
        try:
            lengths, draws, state = await loop.run_in_executor(
                self._servable.threads, self._steps.read, inputs, cancellation
            )
        finally:
            cancellation.start_cancel()
        settings = zip(*(inputs[name] for name in SETTINGS), strict=True)
        rows = zip(draws, settings, inputs["max_new_tokens"].tolist(), strict=True)
        return Generation([Text(*row, stop) for row in rows], lengths), state

    async def _run(self) -> None:
        """Generate until no text is under way."""
        loop = asyncio.get_running_loop()
        rows: list[tuple[Generation, Text]] = []
        state: State = []
        while True:
            kept = [n for n, (generation, text) in enumerate(rows) if not (text.finished or generation.left)]
            joining, self._joining = self._joining, []
            state_rows, rows = len(rows), [rows[n] for n in kept]
            rows += [(generation, text) for generation, _ in joining for text in generation.texts]
            if not rows:
                self._running = None
                return
            states = [new for _, new in joining]
            if kept:
                states.insert(0, state if len(kept) == state_rows else leave_out(state, np.array(kept)))
            generations = dict.fromkeys(generation for generation, _ in rows)
            try:
                tokens, state = await loop.run_in_executor(
                    self._thread, self._step, [text for _, text in rows], states
                )
            except Exception as error:  # each request gets it, and the next ones begin with an empty batch
                for generation in generations:
                    generation.notify(error)
                rows = []
                continue
            for (_, text), token in zip(rows, tokens, strict=True):
                text.add(token)
            for generation in generations:
                generation.notify()

    def _step(self, texts: Sequence[Text], states: Sequence[State]) -> tuple[list[bytes], State]:
        started = time.perf_counter()
        draws = np.array([text.draws[text.tokens] for text in texts], np.float32)
        settings = [np.array(values) for values in zip(*(text.settings for text in texts), strict=True)]
        result = self._steps.step(draws, settings, join(*states) if len(states) > 1 else states[0])
        self._metrics.run(self._servable.name, time.perf_counter() - started)
        return result

    def close(self) -> None:
        """End the thread, once no text is under way."""
        self._thread.shutdown(wait=False)
