"""The bearer tokens of which a call needs one."""

import hashlib
import hmac
import logging
from pathlib import Path

from serving.server.settings import ConfigError
from serving.tokens import read_tokens

log = logging.getLogger("serving")

MISSING = "a token is required: authorization: Bearer TOKEN"
INVALID = "the token is invalid"


class Tokens:
    """The tokens of a file, kept as their SHA-256.

    Args:
        path: The file.

    Raises:
        ConfigError: The file can't be read, has no token, or an invalid line.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        try:
            self._digests = _digests(self._path)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self._read_at = self._state()

    def _state(self) -> tuple[int, ...]:
        """Return numbers that change with the file."""
        try:
            status = self._path.stat()
        except OSError:
            return ()
        return status.st_ino, status.st_mtime_ns, status.st_size

    async def poll(self) -> None:
        """Read the file again if it has changed. The tokens stay as they are if it is invalid."""
        state = self._state()
        if state == self._read_at:
            return
        self._read_at = state
        try:
            self._digests = _digests(self._path)
        except ValueError as error:
            log.error("the tokens are not changed: %s", error)
        else:
            log.info("the tokens were read again: %d", len(self._digests))

    def refusal(self, authorization: str | None) -> str | None:
        """Return why a call is refused; None if it has a token.

        Args:
            authorization: The header; None without one.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return MISSING
        digest = hashlib.sha256(token.strip().encode()).digest()
        # All tokens are compared, so that the time says nothing about them.
        return None if sum(hmac.compare_digest(digest, each) for each in self._digests) else INVALID


def _digests(path: Path) -> list[bytes]:
    return [hashlib.sha256(token.encode()).digest() for token in read_tokens(path)]
