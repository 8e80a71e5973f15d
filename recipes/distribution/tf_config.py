"""Read TF_CONFIG: which processes train together, and which of them this one is.

Kubeflow and every other launcher of TensorFlow clusters sets it, for each process its own:

    {"cluster": {"worker": ["host-0:2222", "host-1:2222"]}, "task": {"type": "worker", "index": 0}}

Standard library only: an invalid one is refused before anything slow is imported.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recipes.config import UserError

JOBS = ("chief", "worker")


@dataclass(frozen=True)
class Cluster:
    """Processes that train one model together.

    Attributes:
        addresses: HOST:PORT of each process, by job.
        job: Job of this process: chief or worker.
        index: Its number in the job, from 0.
    """

    addresses: Mapping[str, tuple[str, ...]]
    job: str
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run directory: the chief, or the first worker without one."""
        return self.index == 0 and (self.job == "chief" or "chief" not in self.addresses)

    @property
    def size(self) -> int:
        """Number of processes."""
        return sum(map(len, self.addresses.values()))


def read_cluster(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """Return the cluster in TF_CONFIG, None if it is empty or names one process only.

    Raises:
        UserError: It is invalid, or it has parameter servers or evaluators.
    """
    text = environment.get("TF_CONFIG", "")
    if not text:
        return None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"TF_CONFIG is not JSON: {error}. Received: {text}") from error
    cluster = _table(content, "TF_CONFIG").get("cluster") or {}
    addresses = {
        job: _addresses(job, given) for job, given in _table(cluster, "TF_CONFIG's cluster").items() if given
    }
    if sum(map(len, addresses.values())) <= 1:
        return None
    task = _table(content.get("task"), "TF_CONFIG's task")
    job, index = task.get("type"), task.get("index")
    if job not in addresses:
        raise UserError(f"TF_CONFIG's task type must be one of {', '.join(addresses)}. Received: {job!r}")
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(addresses[job]):
        raise UserError(f"TF_CONFIG's task index must be 0 to {len(addresses[job]) - 1}. Received: {index!r}")
    if len(addresses.get("chief", ())) > 1:
        raise UserError(f"TF_CONFIG must name one chief at most. Received: {', '.join(addresses['chief'])}")
    return Cluster(addresses, job, index)


def _table(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{what} must be a JSON object. Received: {value!r}")
    return value


def _addresses(job: str, given: Any) -> tuple[str, ...]:
    if job not in JOBS:
        raise UserError(f"TF_CONFIG's cluster: the recipes train with {' and '.join(JOBS)}. Received: {job}")
    if not isinstance(given, list) or not all(isinstance(each, str) and _has_port(each) for each in given):
        raise UserError(f"TF_CONFIG's cluster: {job} must be a list of HOST:PORT. Received: {given!r}")
    return tuple(given)


def _has_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536
