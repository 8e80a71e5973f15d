"""Dynamic batching: requests that wait at the same time run together.

A batch starts when a thread is free and it is full, or its first request has waited for the time
limit. A request that makes a batch fail does not make its neighbours fail: each is then run alone.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow.python.eager.cancellation import CancellationManager

from serving.server.configs import Batching
from serving.server.errors import invalid_argument, unavailable

Arrays = list[npt.NDArray[Any]]
Run = Callable[[Arrays, CancellationManager], Arrays]


@dataclass(eq=False)
class _Task:
    inputs: Arrays
    size: int
    arrived: float
    answer: "asyncio.Future[Arrays]"

    @property
    def shape(self) -> tuple[tuple[int, ...], ...]:
        """What must be alike for two requests to share a batch: all sizes but the first."""
        return tuple(array.shape[1:] for array in self.inputs)


class Batcher:
    """Puts the requests of one signature together. Lives in one event loop.

    Args:
        run: Runs a batch: input arrays to output arrays, both with the examples along dimension 0. The
            manager that it also gets is cancelled when no caller of the batch is left.
        batching: Sizes, time limit, queue.
        executor: Threads to run batches in.
    """

    def __init__(self, run: Run, batching: Batching, executor: Executor) -> None:
        self._run = run
        self._batching = batching
        self._executor = executor
        self._queue: deque[_Task] = deque()
        self._waiting = 0
        self._running = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    async def submit(self, inputs: Arrays) -> Arrays:
        """Run a request's inputs in some batch and return its share of the outputs.

        Raises:
            StatusError: INVALID_ARGUMENT for a request larger than a batch, UNAVAILABLE for a full
                queue, and what the run itself raises.
        """
        size = len(inputs[0])
        largest = self._batching.max_batch_size
        if size > largest:
            raise invalid_argument(f"Task size {size} is larger than maximum input batch size {largest}")
        if self._waiting + size > largest * self._batching.max_enqueued_batches:
            raise unavailable("The batch scheduling queue to which this task was submitted is full")
        task = _Task(inputs, size, self._loop.time(), self._loop.create_future())
        self._queue.append(task)
        self._waiting += size
        self._start_batches()
        try:
            return await task.answer
        finally:
            if task in self._queue:  # its caller left
                self._queue.remove(task)
                self._waiting -= size

    def _start_batches(self) -> None:
        while self._queue and self._running < self._batching.threads:
            wait = self._queue[0].arrived + self._batching.timeout - self._loop.time()
            if wait > 0 and self._waiting < self._batching.max_batch_size:
                if self._timer is None:
                    self._timer = self._loop.call_later(wait, self._on_timer)
                return
            tasks = self._take_batch()
            if tasks:
                self._running += 1
                asyncio.ensure_future(self._execute(tasks))  # noqa: RUF006 - ended by its own bookkeeping

    def _on_timer(self) -> None:
        self._timer = None
        self._start_batches()

    def _take_batch(self) -> list[_Task]:
        """Take from the queue what fits together; requests whose callers went away are dropped."""
        tasks: list[_Task] = []
        size = 0
        while self._queue:
            task = self._queue[0]
            if not task.answer.done():
                if tasks and (
                    size + task.size > self._batching.max_batch_size or task.shape != tasks[0].shape
                ):
                    break
                tasks.append(task)
                size += task.size
            self._queue.popleft()
            self._waiting -= task.size
        return tasks

    async def _execute(self, tasks: list[_Task]) -> None:
        cancellation = CancellationManager()

        def on_answer(_: object) -> None:
            if all(task.answer.done() for task in tasks):
                cancellation.start_cancel()  # no caller is left, or none waits any more

        for task in tasks:
            task.answer.add_done_callback(on_answer)
        try:
            answers = await self._loop.run_in_executor(
                self._executor, self._run_together, tasks, cancellation
            )
        finally:
            self._running -= 1
            self._start_batches()
        for task, answer in zip(tasks, answers, strict=True):
            if task.answer.done():
                continue
            if isinstance(answer, BaseException):
                task.answer.set_exception(answer)
            else:
                task.answer.set_result(answer)

    def _run_together(
        self, tasks: list[_Task], cancellation: CancellationManager
    ) -> Sequence[Arrays | BaseException]:
        if len(tasks) == 1:
            return [self._run_alone(tasks[0], cancellation)]
        try:
            outputs = self._run(
                self._fill_up(
                    [np.concatenate(parts) for parts in zip(*(t.inputs for t in tasks), strict=True)]
                ),
                cancellation,
            )
        except Exception:  # whose request it was is found out by running each alone
            return [self._run_alone(task, cancellation) for task in tasks]
        ends = np.cumsum([task.size for task in tasks])
        return [
            [output[end - task.size : end] for output in outputs]
            for task, end in zip(tasks, ends, strict=True)
        ]

    def _run_alone(self, task: _Task, cancellation: CancellationManager) -> Arrays | BaseException:
        try:
            return [output[: task.size] for output in self._run(self._fill_up(task.inputs), cancellation)]
        except Exception as error:  # goes to the caller, whose handler knows what to make of it
            return error

    def _fill_up(self, inputs: Arrays) -> Arrays:
        """Repeat the last example until the batch has an allowed size."""
        size = len(inputs[0])
        wanted = next((allowed for allowed in self._batching.allowed_batch_sizes if allowed >= size), size)
        if wanted == size or not size:
            return inputs
        return [np.concatenate([array, np.repeat(array[-1:], wanted - size, axis=0)]) for array in inputs]
