"""The client whose calls wait for their answer."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from serving.client.messages import (
    METADATA,
    PREDICT,
    RELOAD,
    STATUS,
    TLS,
    Arrays,
    Messages,
    Method,
    Signature,
    VersionStatus,
    as_serving_error,
    open_channel,
    remote_methods,
)


class Client:
    """Calls a server, one call after the other; safe to share between threads.

    Args:
        address: "host:port", or "unix:path" of a socket.
        timeout: Deadline of each call in seconds, unless the call names another.
        tls: Certificates for an encrypted connection; None for a plain one.
        max_batch_size: Batches larger than this are sent in pieces and put together again.
    """

    def __init__(
        self, address: str, *, timeout: float = 10.0, tls: TLS | None = None, max_batch_size: int = 256
    ) -> None:
        self._messages = Messages(max_batch_size, timeout)
        self._channel = open_channel(grpc, address, tls)
        self._methods = remote_methods(self._channel)

    def predict(
        self,
        model: str,
        inputs: Any = None,
        *,
        signature: str = "serving_default",
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,
        **named: Any,
    ) -> Arrays:
        """Run a signature.

        Args:
            model: Name of the model.
            inputs: Arrays by input name, whatever the names are. bytes and str become string tensors.
            signature: Name of the signature.
            version: Version number; None for the latest.
            label: Version label, instead of a number.
            outputs: Names of the outputs wanted; none for all.
            timeout: Deadline of each call in seconds; None for the client's.
            named: The same as keywords, for inputs that have none of the names above.

        Raises:
            ServingError: With the server's code and text.
        """
        spec = {"model": model, "signature": signature, "version": version, "label": label}
        requests = self._messages.predict_requests(spec, outputs, inputs, named)
        return self._messages.predictions([self._call(PREDICT, request, timeout) for request in requests])

    def metadata(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Signature]:
        """Return a model's signatures, by name."""
        request = self._messages.metadata_request({"model": model, "version": version, "label": label})
        return self._messages.signatures(self._call(METADATA, request, timeout))

    def resolve(self, model: str, *, label: str | None = None, timeout: float | None = None) -> int:
        """Return the number of the version that answers: the latest, or the one with a label."""
        request = self._messages.metadata_request({"model": model, "label": label})
        return self._messages.version(self._call(METADATA, request, timeout))

    def status(
        self, model: str, *, version: int | None = None, timeout: float | None = None
    ) -> dict[int, VersionStatus]:
        """Return the state of each version of a model, or of one."""
        request = self._messages.status_request({"model": model, "version": version})
        return self._messages.states(self._call(STATUS, request, timeout))

    def reload(self, config: str, *, timeout: float | None = None) -> None:
        """Give the server another model config, in TF Serving's text format; it takes the old one's place."""
        self._messages.check_reload(self._call(RELOAD, self._messages.reload_request(config), timeout))

    def _call(self, method: Method, request: Any, timeout: float | None) -> Any:
        try:
            return self._methods[method](request, timeout=timeout or self._messages.timeout)
        except grpc.RpcError as error:
            raise as_serving_error(error) from None

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
