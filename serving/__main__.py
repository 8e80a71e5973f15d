"""Command line of serving: `python -m serving COMMAND --help`."""

import contextlib
import dataclasses
import importlib.metadata
import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from recipes import command_line
from recipes.config import Sampling, UserError, require, require_seed
from recipes.generation.prompts import print_texts, read_prompts
from recipes.runs.flags import parse
from recipes.runs.opening import finished_run
from serving.versions import require_version

HELP = """usage: python -m serving COMMAND ...

  export RUN             publish a finished run as models/NAME/VERSION
  serve [flags]          serve models by gRPC and REST, with TF Serving's flags
  predict IMAGE ...      classify image files, folders of them, or - for standard input
  generate               complete prompts with a served language model
  status MODEL           show the versions of a model and their states
  bench MODEL            measure requests per second and latency for several numbers of clients
"""

Invert = Literal["auto", "yes", "no"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Publish a finished run as a SavedModel that TF Serving can load."""

    run: tyro.conf.Positional[Path]
    """Run directory of a finished run."""
    models: Path = Path("models")
    """Folder of all models."""
    name: str | None = None
    """Name of the model (None: mnist for image recipes, lm for text)."""
    version: int | None = None
    """Version number, at least 1 (None: one more than the highest)."""

    def __post_init__(self) -> None:
        require_version(self.version)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallArguments:
    """The server, and how to reach it."""

    address: str = "localhost:8500"
    """host:port of gRPC, or unix:PATH."""
    timeout: float = 10.0
    """Deadline of each call in seconds."""
    root_certificates: Path | None = None
    """PEM file of the certificates to trust; encrypts the connection."""
    private_key: Path | None = None
    """PEM file of the client's key, for mutual TLS."""
    certificate_chain: Path | None = None
    """PEM file of the client's certificate, for mutual TLS."""
    token_file: Path | None = None
    """File whose first line that is no comment is the bearer token to send."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VersionArguments:
    """The version that answers."""

    model_version: int | None = None
    """Version number (None: the latest)."""
    label: str | None = None
    """Version label, instead of a number."""

    def __post_init__(self) -> None:
        one = self.model_version is None or self.label is None
        require(one, "choose a version or a label", model_version=self.model_version, label=self.label)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictArguments:
    """Classify images."""

    images: tyro.conf.Positional[tuple[Path, ...]]
    """PNG or JPEG files, folders of them, or - for one image on standard input."""
    invert: Invert = "auto"
    """Invert brightness: auto inverts an image with a light background if the training images have a dark
    one, and the other way round."""
    models: Path = Path("models")
    """Folder of all models: NAME/VERSION in it records the background of the training images, which no
    server reports."""
    model: str = "mnist"
    """Name of the model."""
    version: Annotated[VersionArguments, tyro.conf.arg(name="")] = VersionArguments()
    json: bool = False
    """Print a line of JSON for each image instead of a table."""
    call: Annotated[CallArguments, tyro.conf.arg(name="")] = CallArguments()


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateArguments:
    """Complete prompts with a served language model."""

    prompt: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Prompt, at least one token; - reads standard input. Repeat the flag for several prompts in one
    request. The default is a new line."""
    max_new_tokens: int = 200
    """Tokens to generate."""
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = Sampling()
    seed: int = 0
    """Seed of the sampling, 0 to 2**32 - 1."""
    stream: bool = False
    """Print the text of a single prompt while it is generated; the embedded server can."""
    model: str = "lm"
    """Name of the model."""
    version: Annotated[VersionArguments, tyro.conf.arg(name="")] = VersionArguments()
    json: bool = False
    """Print a line of JSON for each text."""
    call: Annotated[CallArguments, tyro.conf.arg(name="")] = CallArguments(timeout=60.0)

    def __post_init__(self) -> None:
        require_seed("--seed", self.seed)
        alone = len(self.prompt) <= 1 and not self.json
        require(alone or not self.stream, "--stream takes one prompt and no --json", prompts=len(self.prompt))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatusArguments:
    """Show the versions of a model."""

    model: tyro.conf.Positional[str] = "mnist"
    """Name of the model."""
    call: Annotated[CallArguments, tyro.conf.arg(name="")] = CallArguments()


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchArguments:
    """Measure a server with random requests for its default signature."""

    model: tyro.conf.Positional[str] = "mnist"
    """Name of the model."""
    callers: tuple[int, ...] = (1, 8, 32)
    """Numbers of clients, each of which sends its next request as soon as it is answered."""
    batch_size: int = 1
    """Examples per request, at least 1."""
    seconds: float = 5.0
    """Length of each measurement, above 0."""
    call: Annotated[CallArguments, tyro.conf.arg(name="")] = CallArguments()

    def __post_init__(self) -> None:
        require(min(self.callers) >= 1, "--callers must be at least 1", callers=self.callers)
        require(self.batch_size >= 1, "--batch-size must be at least 1", batch_size=self.batch_size)
        require(self.seconds > 0, "--seconds must be above 0", seconds=self.seconds)


def export(arguments: Sequence[str]) -> None:
    """Publish a run."""
    chosen = parse(ExportArguments, "serving export", arguments)
    run = finished_run(chosen.run)  # refuse an unfinished run before the slow imports
    print(
        f"exporting {run.path} and comparing it with the Keras model: up to a minute",
        file=sys.stderr,
        flush=True,
    )
    with command_line.quiet_tensorflow():
        from serving import export as exporting

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that an incomplete export is removed
    print(exporting.describe(exporting.export(run, chosen.models, chosen.name, chosen.version)))


def serve(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM."""
    from serving.server import workers
    from serving.server.configs import check
    from serving.server.settings import ConfigError, ServerSettings

    if "--version" in arguments:
        print(f"TensorFlow Library: {importlib.metadata.version('tensorflow')}")
        return
    flags, ignored = spell_flags(arguments)
    settings = parse(ServerSettings, "serving serve", flags, use_underscores=True)
    for line in ignored:
        print(line, file=sys.stderr)
    try:
        check(settings)
        with workers.shared_metrics() if settings.workers > 1 else contextlib.nullcontext():
            with command_line.quiet_tensorflow():
                from serving.server import app

            if settings.workers > 1:
                sys.exit(workers.serve(settings, app.serve))
            app.serve(settings)
    except ConfigError as error:
        raise UserError(str(error)) from error


def spell_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return TF Serving's flags as this server spells them, and a line for each that does nothing here.

    TF Serving writes `--flag=true` and `--flag=false` for `--flag` and `--no_flag`.
    """
    from serving.server.settings import IGNORED

    spelt, ignored = [], []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name.removeprefix("--") in IGNORED:
            ignored.append(f"{name} does nothing here: {IGNORED[name[2:]]}")
            continue
        if name.startswith("--") and value.lower() in ("true", "false"):
            argument = name if value.lower() == "true" else f"--no_{name[2:]}"
        spelt.append(argument)
    return spelt, ignored


def certificates(chosen: CallArguments) -> Any:
    """Return the certificates that the arguments name, or None."""
    from serving.client import TLS

    files = (chosen.root_certificates, chosen.private_key, chosen.certificate_chain)
    return TLS(*(file.read_bytes() if file else None for file in files)) if any(files) else None


def token(chosen: CallArguments) -> str | None:
    """Return the token of the file that the arguments name, or None.

    Raises:
        UserError: The file can't be read, or has no token.
    """
    from serving.tokens import read_tokens

    try:
        return read_tokens(chosen.token_file)[0] if chosen.token_file else None
    except ValueError as error:
        raise UserError(str(error)) from error


@contextlib.contextmanager
def connected(call: CallArguments) -> Iterator[Any]:
    """Give a client.

    Raises:
        UserError: For a ServingError, with the server's address, code and message.
    """
    from serving.client import Client, ServingError

    try:
        with Client(call.address, timeout=call.timeout, tls=certificates(call), token=token(call)) as client:
            yield client
    except ServingError as error:
        advice = "; --token-file names a file with one" if error.code.name == "UNAUTHENTICATED" else ""
        raise UserError(f"{call.address}: {error}{advice}") from error


def predict(arguments: Sequence[str]) -> None:
    """Classify images."""
    chosen = parse(PredictArguments, "serving predict", arguments)
    from serving import images

    names, contents = images.read(chosen.images)
    with connected(chosen.call) as client:
        version = chosen.version.model_version
        if version is None:
            version = client.resolve(chosen.model, label=chosen.version.label)
        contents = like_training(contents, chosen.models / chosen.model / str(version), chosen.invert)
        answer = client.predict(chosen.model, signature="encoded", version=version, image_bytes=contents)
    rows = zip(names, answer["label"].tolist(), answer["probabilities"].tolist(), strict=True)
    for name, label, probabilities in rows:
        if chosen.json:
            print(json.dumps({"image": name, "label": label, "probabilities": probabilities}))
        else:
            print(f"{name:40} {label}   {100 * max(probabilities):6.2f} %")


def like_training(contents: Sequence[bytes], folder: Path, invert: Invert) -> list[bytes]:
    """Return images changed to look like the training images of a version; report changes on stderr."""
    from serving import images
    from serving.training_images import TrainingImages, recorded

    trained_on = recorded(folder)
    if trained_on is None:
        print(
            f"{folder} has no record of the model's training images: images are sent unchanged. "
            "--models names the folder of all models, --invert yes inverts",
            file=sys.stderr,
        )
    files, messages = images.prepare(contents, trained_on or TrainingImages(channels=3), invert)
    for message in messages:
        print(message, file=sys.stderr)
    return files


def generate(arguments: Sequence[str]) -> None:
    """Complete prompts."""
    chosen = parse(GenerateArguments, "serving generate", arguments)
    import numpy as np

    prompts = read_prompts(chosen.prompt)
    rows, sampling = len(prompts), chosen.sampling
    inputs = {
        "prompt": np.array([prompt.encode() for prompt in prompts], np.object_),
        "max_new_tokens": np.full(rows, chosen.max_new_tokens, np.int32),
        "temperature": np.full(rows, sampling.temperature, np.float32),
        "top_k": np.full(rows, sampling.top_k, np.int32),
        "top_p": np.full(rows, sampling.top_p, np.float32),
        "seed": np.full(rows, chosen.seed, np.int64),
    }
    version = {"version": chosen.version.model_version, "label": chosen.version.label}
    with connected(chosen.call) as client:
        if chosen.stream:
            print(prompts[0], end="")
            for part in client.generate(chosen.model, **version, **inputs):
                print(part["text"][0].decode(), end="", flush=True)
            print()
            return
        answer = client.predict(chosen.model, signature="generate", **version, **inputs)
    texts = [text.decode() for text in answer["text"].tolist()]
    print_texts(prompts, texts, as_json=chosen.json)


def status(arguments: Sequence[str]) -> None:
    """Show a model's versions."""
    chosen = parse(StatusArguments, "serving status", arguments)
    with connected(chosen.call) as client:
        versions = client.status(chosen.model)
    for number, state in versions.items():
        print(f"{chosen.model} {number:>6}  {state.state:10} {state.error_text}".rstrip())


def bench(arguments: Sequence[str]) -> None:
    """Measure a server."""
    chosen = parse(BenchArguments, "serving bench", arguments)
    from serving import load

    with connected(chosen.call) as client:
        request = load.random_request(client.metadata(chosen.model), chosen.model, chosen.batch_size)
        secrets = certificates(chosen.call), token(chosen.call)
        print(load.HEADER)
        for clients in chosen.callers:
            measured = load.measure(chosen.call.address, request, clients, chosen.seconds, *secrets)
            print(measured.row(chosen.batch_size), flush=True)


COMMANDS: Mapping[str, command_line.Command] = {
    "export": export,
    "serve": serve,
    "predict": predict,
    "generate": generate,
    "status": status,
    "bench": bench,
}


def main() -> int:
    """Run the command line and return its exit status."""
    return command_line.run(COMMANDS, HELP, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
