"""Spans of calls, with an exporter in memory; and the server without a tracer provider or the library."""

import contextlib
import json
import logging

import grpc
import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from serving.client import Client, ServingError
from serving.protocol import METHODS
from serving.server import tracing
from serving.server.servable import Servable
from tests.processes import wait_until
from tests.serving.conftest import in_process
from tests.serving.looping import ENDLESS, PREDICT, predict_request, rest

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
INFER = "/v2/models/looping/infer"
BODIES = {
    PREDICT: {"inputs": [3, 4]},
    INFER: {"inputs": [{"name": "steps", "shape": [2], "datatype": "INT32", "data": [3, 4]}]},
}


@pytest.fixture
def exporter(monkeypatch):
    """The spans of this process, as opentelemetry-instrument would set them up."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing.trace, "get_tracer_provider", lambda: provider)
    yield exporter
    logging.getLogger("serving").removeFilter(tracing.add_trace_id)


@pytest.fixture
def server(exporter, looping):
    with in_process(model_name="looping", model_base_path=str(looping)) as (started, _):
        yield started


def span_of(exporter):
    """Return the only span that has ended, and forget it."""
    wait_until(exporter.get_finished_spans)
    (span,) = exporter.get_finished_spans()
    exporter.clear()
    return span


def told(span):
    """Return the attributes of a span without their prefix."""
    return {name.removeprefix("serving."): value for name, value in span.attributes.items()}


OK = {
    "model": "looping",
    "version": 1,
    "signature": "serving_default",
    "rows": 2,
    "status": "OK",
}


def test_a_call_by_grpc_is_a_child_of_its_callers_span(server, exporter):
    with grpc.insecure_channel(f"localhost:{server.port}") as channel:
        predict = channel.unary_unary(METHODS["Predict"].path)
        content = predict_request([3, 4]).SerializeToString()
        predict(content, timeout=30, metadata=(("traceparent", TRACEPARENT), ("tracestate", "a=b")))
        span = span_of(exporter)
        predict(content, timeout=30)
        other = span_of(exporter)
    assert (span.name, span.kind, told(span)) == ("Predict", SpanKind.SERVER, OK | {"entrypoint": "GRPC"})
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert span.context.trace_state["a"] == "b"
    assert (other.parent, f"{other.context.trace_id:032x}" == TRACE) == (None, False)


@pytest.mark.parametrize("path", [PREDICT, INFER])
def test_a_call_by_rest_is_a_child_of_its_callers_span(server, exporter, path):
    assert rest(server, path, json.dumps(BODIES[path]), traceparent=TRACEPARENT)[0] == 200
    span = span_of(exporter)
    assert (span.name, told(span)) == ("Predict", OK | {"entrypoint": "REST"})
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert rest(server, path, json.dumps(BODIES[path]), traceparent="invalid")[0] == 200
    assert span_of(exporter).parent is None


def test_a_span_has_the_status_of_its_call(server, exporter):
    with Client(f"localhost:{server.port}", timeout=0.3) as client:
        for model, steps, status, code in (
            ("looping", 3, "OK", StatusCode.UNSET),
            ("none", 3, "NOT_FOUND", StatusCode.UNSET),
            ("looping", ENDLESS, "DEADLINE_EXCEEDED", StatusCode.ERROR),
        ):
            with contextlib.suppress(ServingError):
                client.predict(model, steps=np.array([steps], np.int32))
            span = span_of(exporter)
            assert (told(span)["status"], told(span)["model"]) == (status, model)
            assert span.status.status_code is code


def test_the_log_names_the_trace_of_an_unexpected_error(server, exporter, monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(Servable, "run", fail)
    assert rest(server, PREDICT, json.dumps(BODIES[PREDICT]), traceparent=TRACEPARENT)[0] == 500
    assert span_of(exporter).status.status_code is StatusCode.ERROR
    assert f"unexpected error in Predict [trace {TRACE}]" in caplog.text


def test_the_last_spans_are_exported_when_the_server_ends(exporter, looping, monkeypatch):
    flushed = []
    provider = tracing.trace.get_tracer_provider()
    monkeypatch.setattr(provider, "force_flush", flushed.append)
    with in_process(model_name="looping", model_base_path=str(looping)):
        assert flushed == []
    assert flushed == [tracing.FLUSH_MILLISECONDS]


@pytest.mark.parametrize("library", [True, False])
def test_without_a_provider_or_the_library_nothing_is_traced(looping, monkeypatch, library):
    if not library:
        monkeypatch.setattr(tracing, "trace", None)
    assert tracing.create_tracing() is None
    with in_process(model_name="looping", model_base_path=str(looping)) as (server, _):
        assert rest(server, PREDICT, json.dumps(BODIES[PREDICT]), traceparent=TRACEPARENT)[0] == 200
