"""Free TCP ports on the loopback address."""

import random
import socket
from pathlib import Path

from deploy.local.errors import StackError

HOST = "127.0.0.1"
PORT_FIRST = 20_000
PORT_LAST_DEFAULT = 32_767
TRIES_MAX = 200
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def is_free(port: int) -> bool:
    """Tell whether the port can be bound now; like the servers, past connections in TIME_WAIT do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Pick a free port below the range that the system gives to outgoing connections.

    A port of that range is dangerous for a server that is killed and restarted: a client that retries in between may
    be given the very same local port and connect to itself, and the server can never bind it again.
    """
    chooser = random.SystemRandom()
    for _ in range(TRIES_MAX):
        port = chooser.randint(PORT_FIRST, _port_last())
        if is_free(port):
            return port
    raise StackError(
        f"No free TCP port found on {HOST} between {PORT_FIRST} and {_port_last()} in {TRIES_MAX} tries.",
        "end programs that hold ports (`ss -ltn` lists them), or name ports that are free.",
    )


def _port_last() -> int:
    try:
        ephemeral_first = int(_EPHEMERAL_RANGE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return PORT_LAST_DEFAULT
    # A machine may hand out every port; then there is no safe range, and the default is as good as any.
    return ephemeral_first - 1 if ephemeral_first > PORT_FIRST + TRIES_MAX else PORT_LAST_DEFAULT
