"""What all commands of the project share: exit statuses, errors of one or two lines, a quiet TensorFlow."""

import contextlib
import difflib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from recipes.config import LostWorkerError, UserError, nearest

Command = Callable[[Sequence[str]], None]

LOST_WORKER_STATUS = 138
"""Exit status after which Kubeflow's training operator restarts a process."""


def run(commands: Mapping[str, Command], help_text: str, arguments: Sequence[str]) -> int:
    """Run the command that the arguments name.

    Returns:
        The exit status: 0 done, 2 the user's input is wrong, 130 Ctrl-C, 138 another worker of the cluster
        is lost. Any other exception is a fault and is not caught: Python exits with 1.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(help_text, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    try:
        if arguments[0] not in commands:
            raise UserError(f"There is no command {arguments[0]!r}. {nearest(arguments[0], commands)}")
        commands[arguments[0]](arguments[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except LostWorkerError as error:
        print(f"error: {error}", file=sys.stderr)
        return LOST_WORKER_STATUS
    except BrokenPipeError:  # the reader has closed the pipe, as in `... --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.strerror is None:
            raise
        print(f"error: {error.strerror}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def shell_command(module: str, *arguments: object) -> str:
    """Return a command that runs a module with this interpreter, to be pasted into a shell in this directory."""
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    return shlex.join(map(str, (python, "-m", module, *arguments)))


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn the framed errors that tyro prints before it exits with 2 into a UserError."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            yield
    except SystemExit as exit_:
        if exit_.code != 2:
            raise
        raise UserError(unframe(printed.getvalue())) from None


def unframe(frame: str) -> str:
    """Return the message of a framed error, with the nearest flag, without frame and help."""
    # Where standard output is not UTF-8, tyro draws no sides, and a line under the title.
    inside = re.findall("^│.*", frame, re.MULTILINE) or frame.splitlines()[2:]
    blocks = re.split(r"\n[─-]+\n", "\n".join(line.strip("│ ") for line in inside))
    said = " ".join(blocks[0].split())
    meant = [block for block in blocks[1:] if block.startswith("Perhaps you meant")]
    if meant:
        # tyro lists the flags that contain the received one in alphabetical order.
        flags = re.findall(r"^\s*(--[\w.-]+)", meant[0], re.MULTILINE)
        received = re.findall(r"--[\w.-]+", said)
        near = difflib.get_close_matches(received[0], flags, n=1, cutoff=0.0) if received else flags
        said += f". Did you mean {near[0]}?"
    return re.sub(r"^Error parsing [\w.]+: ", "", said)


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """Return the value of a flag that is needed before the others can be parsed; None if it is not given."""
    for number, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            return argument.removeprefix(f"{flag}=")
        if argument == flag and number + 1 < len(arguments):
            return arguments[number + 1]
    return None


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Choose Keras's backend, and import TensorFlow inside without its start-up messages.

    TF_CPP_MIN_LOG_LEVEL does not hold back the messages of the import itself (tensorflow#100442), so standard
    error goes to a temporary file meanwhile, which is printed if the import fails.

    Raises:
        UserError: KERAS_BACKEND is another one.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise UserError(f"The recipes need Keras's TensorFlow backend. Received: KERAS_BACKEND={backend}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        try:
            yield
        except BaseException:  # Ctrl-C and user errors too
            messages.seek(0)
            os.write(standard_error, messages.read())
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
