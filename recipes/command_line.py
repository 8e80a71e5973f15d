"""What all commands of the project share: exit statuses, commands as text, a quiet TensorFlow."""

import contextlib
import logging
import os
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


def _no_retracing(record: logging.LogRecord) -> bool:
    """Drop the warning that a function is traced often.

    TensorFlow counts by source code, and Keras's training loop is one source for all models: a pruning or a search
    with five models gets the warning although each of them is traced once.
    """
    return "triggered tf.function retracing" not in record.getMessage()


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
    logging.getLogger("tensorflow").addFilter(_no_retracing)
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
