"""Dynamic batching: requests that wait at the same time run as one batch.

A batch starts when a thread is free and the batch is full, or its first request has waited for the
timeout. If a batch fails, each of its requests runs alone, so that one invalid request does not fail others.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from tensorflow.python.eager.cancellation import CancellationManager

from serving.server.configs import Batching
from serving.server.errors import invalid_argument, unavailable
from serving.tensors import Array

RunBatch = Callable[[list[Array], CancellationManager], list[Array]]


@dataclass(eq=False)
class _Task:
    inputs: list[Array]
    size: int
    arrived: float
    result: "asyncio.Future[list[Array]]"

    @property
    def shape(self) -> tuple[tuple[int, ...], ...]:
        """All sizes but the first: requests that share a batch have the same."""
        return tuple(array.shape[1:] for array in self.inputs)


class Batcher:
    """Batches the requests of one signature, in one event loop.

    Args:
        run: Runs a batch: input arrays to output arrays, both with the examples along dimension 0. Its
            CancellationManager is cancelled when all callers of the batch have left.
        batching: Sizes, timeout, queue.
        executor: Threads to run batches in.
    """

    def __init__(self, run: RunBatch, batching: Batching, executor: Executor) -> None:
        self._run = run
        self._batching = batching
        self._executor = executor
        self._queue: deque[_Task] = deque()
        self._waiting = 0
        self._running = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    async def submit(self, inputs: list[Array]) -> list[Array]:
        """Run the inputs of a request in a batch and return the request's part of the outputs.

        Raises:
            StatusError: INVALID_ARGUMENT for a request larger than a batch, UNAVAILABLE for a full
                queue, or what the run raises.
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
            return await task.result
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
                asyncio.ensure_future(self._execute(tasks))  # noqa: RUF006 - `_running` keeps track of it

    def _on_timer(self) -> None:
        self._timer = None
        self._start_batches()

    def _take_batch(self) -> list[_Task]:
        """Take requests that fit together from the queue; requests whose callers left are dropped."""
        tasks: list[_Task] = []
        size = 0
        while self._queue:
            task = self._queue[0]
            if not task.result.done():
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

        def on_done(_: object) -> None:
            if all(task.result.done() for task in tasks):
                cancellation.start_cancel()  # all callers have left or have their result

        for task in tasks:
            task.result.add_done_callback(on_done)
        try:
            results = await self._loop.run_in_executor(
                self._executor, self._run_together, tasks, cancellation
            )
        finally:
            self._running -= 1
            self._start_batches()
        for task, result in zip(tasks, results, strict=True):
            if task.result.done():
                continue
            if isinstance(result, BaseException):
                task.result.set_exception(result)
            else:
                task.result.set_result(result)

    def _run_together(
        self, tasks: list[_Task], cancellation: CancellationManager
    ) -> Sequence[list[Array] | BaseException]:
        if len(tasks) == 1:
            return [self._run_alone(tasks[0], cancellation)]
        try:
            outputs = self._run(
                self._pad([np.concatenate(parts) for parts in zip(*(t.inputs for t in tasks), strict=True)]),
                cancellation,
            )
        except Exception:  # run alone, the invalid request fails and the others do not
            return [self._run_alone(task, cancellation) for task in tasks]
        ends = np.cumsum([task.size for task in tasks])
        return [
            [output[end - task.size : end] for output in outputs]
            for task, end in zip(tasks, ends, strict=True)
        ]

    def _run_alone(self, task: _Task, cancellation: CancellationManager) -> list[Array] | BaseException:
        try:
            return [output[: task.size] for output in self._run(self._pad(task.inputs), cancellation)]
        except Exception as error:  # the caller's handler handles it
            return error

    def _pad(self, inputs: list[Array]) -> list[Array]:
        """Repeat the last example until the batch has an allowed size."""
        size = len(inputs[0])
        padded = next((allowed for allowed in self._batching.allowed_batch_sizes if allowed >= size), size)
        if padded == size or not size:
            return inputs
        return [np.concatenate([array, np.repeat(array[-1:], padded - size, axis=0)]) for array in inputs]
