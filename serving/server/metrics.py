"""Counters and latencies under TF Serving's metric names, for Prometheus."""

import bisect
import threading
from collections import defaultdict
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

Labels = tuple[tuple[str, str], ...]

BUCKETS = tuple(10 * 1.8**power for power in range(33))
"""Upper bounds of the latency buckets in microseconds, as TF Serving spaces them."""


class _Histogram:
    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect.bisect_left(BUCKETS, value)] += 1
        self.sum += value


class Metrics(Collector):
    """Counts requests and loads, and collects how long they took.

    prometheus-client would add `_total` to a counter's name and TF Serving does not, so its
    registry and text format are used, and the counting is here.
    """

    def __init__(self) -> None:
        self._counters: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        self._histograms: dict[str, dict[Labels, _Histogram]] = defaultdict(lambda: defaultdict(_Histogram))
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def request(self, model: str, entrypoint: str, api: str, status: str, seconds: float) -> None:
        """Count an answered request.

        Args:
            model: Name of the model, one that is served: a caller's own words would fill the memory.
            entrypoint: GRPC or REST.
            api: Predict, Classify, ...
            status: Name of the gRPC status code.
            seconds: From its arrival to its answer.
        """
        latency = (("API", api), ("entrypoint", entrypoint), ("model_name", model))
        with self._lock:
            self._counters[":tensorflow:serving:request_count"][
                ("model_name", model), ("status", status)
            ] += 1
            self._histograms[":tensorflow:serving:request_latency"][latency].add(seconds * 1e6)

    def run(self, model: str, seconds: float) -> None:
        """Count a run of a graph."""
        with self._lock:
            self._counters[":tensorflow:core:graph_runs"][()] += 1
            self._histograms[":tensorflow:serving:runtime_latency"][(("model_name", model),)].add(
                seconds * 1e6
            )

    def load(self, path: str, status: str, seconds: float) -> None:
        """Count an attempt to load a version; status is success or fail."""
        attempt = (("model_path", path), ("status", status))
        with self._lock:
            self._counters[":tensorflow:cc:saved_model:load_attempt_count"][attempt] += 1
            self._counters[":tensorflow:cc:saved_model:load_latency"][(("model_path", path),)] += (
                seconds * 1e6
            )

    def collect(self) -> Iterator[Metric]:
        """Give prometheus-client what has been counted."""
        with self._lock:
            for name, counters in self._counters.items():
                metric = Metric(name, "", "counter")
                for labels, value in counters.items():
                    metric.add_sample(name, dict(labels), value)
                yield metric
            for name, histograms in self._histograms.items():
                metric = Metric(name, "", "histogram")
                for labels, histogram in histograms.items():
                    _add_buckets(metric, name, dict(labels), histogram)
                yield metric

    def text(self) -> bytes:
        """Return all of it in Prometheus's text format."""
        return generate_latest(self._registry)


def _add_buckets(metric: Metric, name: str, labels: dict[str, str], histogram: _Histogram) -> None:
    total = 0
    for bound, count in zip([*map(str, BUCKETS), "+Inf"], histogram.counts, strict=True):
        total += count
        metric.add_sample(f"{name}_bucket", {**labels, "le": bound}, total)
    metric.add_sample(f"{name}_sum", labels, histogram.sum)
    metric.add_sample(f"{name}_count", labels, total)
