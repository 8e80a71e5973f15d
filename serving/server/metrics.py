"""Counters and latencies under TF Serving's metric names, for Prometheus."""

import os
import re

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

MICROSECONDS = 1e6
BUCKETS = tuple(10 * 1.8**power for power in range(33))
"""Upper bounds of the latency buckets in microseconds, as in TF Serving."""


class Metrics:
    """Counts requests, runs of graphs and loads of models, and measures how long they take."""

    def __init__(self) -> None:
        disable_created_metrics()
        self._registry = CollectorRegistry()
        self._requests = self._counter(":tensorflow:serving:request_count", "model_name", "status")
        self._request_latency = self._histogram(
            ":tensorflow:serving:request_latency", "model_name", "API", "entrypoint"
        )
        self._runs = self._counter(":tensorflow:core:graph_runs")
        self._run_latency = self._histogram(":tensorflow:serving:runtime_latency", "model_name")
        self._loads = self._counter(":tensorflow:cc:saved_model:load_attempt_count", "model_path", "status")
        self._load_latency = self._counter(":tensorflow:cc:saved_model:load_latency", "model_path")

    def _counter(self, name: str, *labels: str) -> Counter:
        return Counter(name, "", labels, registry=self._registry)

    def _histogram(self, name: str, *labels: str) -> Histogram:
        return Histogram(name, "", labels, registry=self._registry, buckets=BUCKETS)

    def request(self, model: str, entrypoint: str, api: str, status: str, seconds: float) -> None:
        """Count an answered request.

        Args:
            model: Name of a served model. Names that callers make up would fill the memory.
            entrypoint: GRPC or REST.
            api: Predict, Classify, ...
            status: Name of the gRPC status code.
            seconds: From its arrival to its answer.
        """
        self._requests.labels(model, status).inc()
        self._request_latency.labels(model, api, entrypoint).observe(seconds * MICROSECONDS)

    def run(self, model: str, seconds: float) -> None:
        """Count a run of a graph."""
        self._runs.inc()
        self._run_latency.labels(model).observe(seconds * MICROSECONDS)

    def load(self, path: str, status: str, seconds: float) -> None:
        """Count an attempt to load a version; status is success or fail."""
        self._loads.labels(path, status).inc()
        self._load_latency.labels(path).inc(seconds * MICROSECONDS)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format, of all workers together."""
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        # prometheus-client appends _total to the name of a counter, TF Serving does not.
        return re.sub(rb"(?m)^((?:# (?:HELP|TYPE) )?[\w:]+)_total(?=[ {])", rb"\1", generate_latest(registry))
