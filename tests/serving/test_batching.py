"""The batcher: which requests it runs in one batch, and what it refuses."""

import asyncio
import threading
import time

import grpc
import numpy as np
import pytest

from serving.server.batching import Batcher
from serving.server.configs import (
    Batching,
)
from serving.server.errors import StatusError


def batcher_of(run, loop_executor, **batching):
    return Batcher(lambda inputs, cancellation: run(inputs), Batching(**batching), loop_executor)


def in_loop(scenario):
    from concurrent.futures import ThreadPoolExecutor

    async def go():
        with ThreadPoolExecutor(4) as executor:
            return await scenario(executor)

    return asyncio.run(go())


def test_waiting_requests_run_in_one_batch_and_get_their_own_outputs():
    sizes = []

    def double(inputs):
        sizes.append(len(inputs[0]))
        time.sleep(0.05)
        return [2 * inputs[0]]

    async def scenario(executor):
        batcher = batcher_of(double, executor, max_batch_size=4)
        return await asyncio.gather(*(batcher.submit([np.array([n])]) for n in range(9)))

    answers = in_loop(scenario)
    assert [answer[0].tolist() for answer in answers] == [[2 * n] for n in range(9)]
    assert sizes == [1, 4, 4]  # the first finds a free thread, the others wait for it


def test_an_invalid_request_does_not_fail_others_in_its_batch():
    def invert(inputs):
        if (inputs[0] == 0).any():
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "zero")
        return [1 / inputs[0]]

    async def scenario(executor):
        batcher = batcher_of(invert, executor, timeout=0.05)
        requests = (batcher.submit([np.array([n])]) for n in (1.0, 0.0, 4.0))
        return await asyncio.gather(*requests, return_exceptions=True)

    good, bad, also_good = in_loop(scenario)
    assert (good[0].tolist(), also_good[0].tolist()) == ([1.0], [0.25])
    assert str(bad) == "zero"


def test_the_time_limit_and_the_largest_size_start_a_batch():
    sizes = []

    def run(inputs):
        sizes.append(len(inputs[0]))
        return inputs

    async def scenario(executor):
        batcher = batcher_of(run, executor, max_batch_size=3, timeout=0.2)
        await asyncio.gather(*(batcher.submit([np.zeros(1)]) for _ in range(5)))

    in_loop(scenario)
    assert sizes == [3, 2]


def test_a_full_queue_and_a_too_large_request_are_refused_in_tf_servings_words():
    release = threading.Event()

    def run(inputs):
        release.wait(5)
        return inputs

    async def scenario(executor):
        batcher = batcher_of(run, executor, max_batch_size=2, max_enqueued_batches=1)
        first = asyncio.ensure_future(batcher.submit([np.zeros(2)]))
        await asyncio.sleep(0.05)  # it is running now, and no longer waits
        second = asyncio.ensure_future(batcher.submit([np.zeros(2)]))
        await asyncio.sleep(0)
        with pytest.raises(
            StatusError, match="The batch scheduling queue to which this task was submitted is full"
        ):
            await batcher.submit([np.zeros(1)])
        with pytest.raises(StatusError, match="Task size 40 is larger than maximum input batch size 2"):
            await batcher.submit([np.zeros(40)])
        release.set()
        await asyncio.gather(first, second)

    in_loop(scenario)


def test_the_request_of_a_caller_that_left_is_not_run():
    ran = []

    def run(inputs):
        ran.extend(inputs[0].tolist())
        time.sleep(0.1)
        return inputs

    async def scenario(executor):
        batcher = batcher_of(run, executor, max_batch_size=1)
        first = asyncio.ensure_future(batcher.submit([np.array([1])]))
        await asyncio.sleep(0.02)
        gone = asyncio.ensure_future(batcher.submit([np.array([2])]))
        last = asyncio.ensure_future(batcher.submit([np.array([3])]))
        await asyncio.sleep(0.02)
        gone.cancel()
        await asyncio.gather(first, last)

    in_loop(scenario)
    assert ran == [1, 3]


def test_a_caller_that_left_frees_its_place_in_the_queue():
    release = threading.Event()

    def run(inputs):
        release.wait(5)
        return inputs

    async def scenario(executor):
        batcher = batcher_of(run, executor, max_batch_size=1, max_enqueued_batches=1)
        first = asyncio.ensure_future(batcher.submit([np.zeros(1)]))
        await asyncio.sleep(0.05)  # it is running now, and no longer waits
        for _ in range(3):  # each would find the queue full of the one before
            gone = asyncio.ensure_future(batcher.submit([np.zeros(1)]))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.wait([gone])
        last = asyncio.ensure_future(batcher.submit([np.ones(1)]))
        await asyncio.sleep(0)
        release.set()
        await first
        return await last

    assert in_loop(scenario)[0].tolist() == [1]


def test_batches_are_padded_to_an_allowed_size_and_shapes_are_not_mixed():
    shapes = []

    def run(inputs):
        shapes.append(inputs[0].shape)
        return inputs

    async def scenario(executor):
        batcher = batcher_of(run, executor, max_batch_size=4, timeout=0.05, allowed_batch_sizes=(2, 4))
        requests = [batcher.submit([np.full((1, width), width)]) for width in (3, 3, 3, 5)]
        return await asyncio.gather(*requests)

    answers = in_loop(scenario)
    assert [answer[0].shape for answer in answers] == [(1, 3), (1, 3), (1, 3), (1, 5)]
    assert sorted(shapes) == [(2, 5), (4, 3)]
