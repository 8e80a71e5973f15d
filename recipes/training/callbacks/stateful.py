"""What a callback offers that remembers something between epochs."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Stateful(Protocol):
    """A callback whose memory survives a kill."""

    def state(self) -> dict[str, Any]:
        """Return the memory: JSON values, NumPy arrays, and lists of arrays."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take the memory back, after `on_train_begin`."""
