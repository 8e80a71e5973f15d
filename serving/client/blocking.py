"""The client whose calls block until they are answered."""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from serving.client import messages
from serving.client.messages import TLS, Exchange, Result, ServingError, VersionStatus
from serving.tensors import Arrays, Signature


class Client:
    """Calls a server; threads can share it.

    Args:
        address: "host:port", or "unix:path" of a socket.
        timeout: Deadline of each call in seconds, unless the call has its own.
        tls: Certificates for an encrypted connection; None for an unencrypted one.
        token: Bearer token to send with each call; None for none.
        max_batch_size: Larger batches are sent in several requests, and their outputs concatenated.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 10.0,
        tls: TLS | None = None,
        token: str | None = None,
        max_batch_size: int = 256,
    ) -> None:
        messages.check_settings(timeout, max_batch_size)
        self._timeout = timeout
        self._max_batch_size = max_batch_size
        self._channel = messages.open_channel(grpc, address, tls)
        self._methods = messages.remote_methods(self._channel, token)

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
            inputs: Arrays by input name. bytes and str become string tensors.
            signature: Name of the signature.
            version: Version number; None for the latest.
            label: Version label, instead of a number.
            outputs: Names of the requested outputs; empty for all.
            timeout: Deadline of each call in seconds; None for the client's.
            named: The inputs as keywords, if they have none of the names above.

        Returns:
            Arrays by output name.

        Raises:
            ServingError: With the server's code and message.
        """
        spec = {"model": model, "signature": signature, "version": version, "label": label}
        return self._call(messages.predict(spec, inputs, named, outputs, self._max_batch_size), timeout)

    def generate(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Iterator[Arrays]:
        """Stream texts from the embedded server while they are generated.

        Args:
            model: Name of the model.
            version: Version number; None for the latest.
            label: Version label, instead of a number.
            timeout: Deadline of the whole stream in seconds; None for the client's.
            inputs: The inputs of the signature `generate`.

        Yields:
            What is new of each text, arrays (n,): `text` string; `finish_reason` string, empty until the text
            has ended; `prompt_tokens` and `completion_tokens` int32, the tokens so far.

        Raises:
            ServingError: With the server's code and message.
        """
        request = messages.generate({"model": model, "version": version, "label": label}, inputs)
        responses = self._methods["Generate"](request, timeout=timeout or self._timeout)
        try:
            for response in responses:
                yield messages.read_outputs(response)
        except grpc.RpcError as error:
            raise ServingError.from_grpc(error) from None
        finally:
            responses.cancel()  # no effect on a stream that has ended

    def metadata(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Signature]:
        """Return the signatures of a model, by name."""
        return self._call(messages.metadata(model, version, label), timeout)

    def resolve(self, model: str, *, label: str | None = None, timeout: float | None = None) -> int:
        """Return the number of the version that answers: the latest, or the one with the label."""
        return self._call(messages.resolve(model, label), timeout)

    def status(
        self, model: str, *, version: int | None = None, timeout: float | None = None
    ) -> dict[int, VersionStatus]:
        """Return the state of each version of a model, or of one version."""
        return self._call(messages.status(model, version), timeout)

    def reload(self, config: str, *, timeout: float | None = None) -> None:
        """Replace the server's model config by one in TF Serving's text format."""
        self._call(messages.reload(config), timeout)

    def _call(self, exchange: Exchange[Result], timeout: float | None) -> Result:
        method, seconds = self._methods[exchange.method], timeout or self._timeout
        try:
            responses = [method(request, timeout=seconds) for request in exchange.requests]
        except grpc.RpcError as error:
            raise ServingError.from_grpc(error) from None
        return exchange.read(responses)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
