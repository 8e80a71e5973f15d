"""Files of bearer tokens (RFC 6750), for client and server: one token a line; from # on, a line is a comment."""

import re
from pathlib import Path

TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""A b64token of RFC 6750."""


def read_tokens(path: str | Path) -> list[str]:
    """Return the tokens of a file.

    Raises:
        ValueError: The file can't be read, has no token, or a line that is no token. The message has no token.
    """
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"the token file {path} can't be read: {reason}") from error
    tokens = []
    for number, line in enumerate(lines, start=1):
        token = re.sub(r"(^|\s)#.*", "", line).strip()
        if token and not TOKEN.fullmatch(token):
            raise ValueError(
                f"line {number} of the token file {path} is not a token: letters, digits and -._~+/="
            )
        tokens += [token] if token else []
    if not tokens:
        raise ValueError(f"the token file {path} has no token: write one a line")
    return tokens
