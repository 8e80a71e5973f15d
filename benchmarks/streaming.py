"""Print the table of streaming in docs/results: tokens per second and time to the first token of a language model.

    python -m benchmarks.streaming --run RUN

Callers read server-sent events in a process of their own, on the machine of the server.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.commands import command
from benchmarks.serving import REST, server
from benchmarks.tables import print_header, print_row

MODEL = "lm"
TOKENS = 200
CALLERS = 16


@dataclass(frozen=True)
class Stream:
    """When the events of a stream arrived, in seconds after its request was sent, and its text."""

    arrivals: Sequence[float]
    text: str

    @property
    def first_token(self) -> float:
        """Seconds to the first token."""
        return self.arrivals[0]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="a finished run of a language model")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="tokens of each text")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command("serving", "export", arguments.run, "--models", folder)
        with server(f"--model_base_path={folder}/{MODEL}", model=MODEL):
            measure(int(REST.split(":")[1]), arguments.tokens)


def measure(port: int, tokens: int) -> None:
    """Print a row for one caller after the other, and for all at once; check that the texts are the same."""
    asyncio.run(_stream(port, tokens, seed=0))  # the first call of a connection is slower
    started = time.perf_counter()
    alone = [asyncio.run(_stream(port, tokens, seed)) for seed in range(CALLERS)]
    seconds = time.perf_counter() - started
    print_header("callers", "tokens/s", "first token ms", "between tokens ms")
    print_row(1, *_cells(alone, tokens, seconds))
    started = time.perf_counter()
    together = asyncio.run(_all(port, tokens))
    seconds_together = time.perf_counter() - started
    print_row(CALLERS, *_cells(together, tokens, seconds_together))
    same = sum(one.text == other.text for one, other in zip(alone, together, strict=True))
    print(
        f"\n{seconds / seconds_together:.1f} times the tokens per second; {same} of {CALLERS} texts are the same"
    )


def _cells(streams: Sequence[Stream], tokens: int, seconds: float) -> tuple[str, str, str]:
    """Return tokens per second, and the medians of the times to the first token and between tokens."""
    first = statistics.median(stream.first_token for stream in streams)
    step = statistics.median(
        (stream.arrivals[-1] - stream.first_token) / max(tokens - 1, 1) for stream in streams
    )
    return f"{len(streams) * tokens / seconds:,.0f}", f"{1000 * first:.1f}", f"{1000 * step:.1f}"


async def _all(port: int, tokens: int) -> list[Stream]:
    return await asyncio.gather(*(_stream(port, tokens, seed) for seed in range(CALLERS)))


async def _stream(port: int, tokens: int, seed: int) -> Stream:
    request = {"model": MODEL, "prompt": "ROMEO:", "max_tokens": tokens, "temperature": 0.8, "seed": seed}
    body = json.dumps({**request, "stream": True}).encode()
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
    writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    arrivals, events = [], []
    async for line in reader:
        if line.startswith(b"data: {"):
            arrivals.append(time.perf_counter() - started)
            events.append(line)
    writer.close()
    parts = [json.loads(event.removeprefix(b"data: ")) for event in events]
    if not parts or any("error" in part for part in parts):
        raise SystemExit(f"the server refused a request: {parts}")
    return Stream(arrivals, "".join(part["choices"][0]["text"] for part in parts))


if __name__ == "__main__":
    main()
