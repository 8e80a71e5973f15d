"""TCP ports to listen on."""

import socket

from serving.server.settings import ConfigError, ServerSettings


def listen(settings: ServerSettings, flag: str, *, shared: bool = False) -> socket.socket:
    """Return a socket bound to the settings' host and the port of a flag.

    Args:
        settings: The server's flags.
        flag: port or rest_api_port.
        shared: Whether other processes can bind to it too.

    Raises:
        ConfigError: The port is in use, or the host is not one of this machine.
    """
    host, port = settings.host, getattr(settings, flag)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"can't listen on {host}:{port}: {error.strerror}; --{flag} chooses another port"
        ) from error
    return listener
