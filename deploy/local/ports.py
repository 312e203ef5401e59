"""Free TCP ports on the loopback address."""

import random
import socket
import sys
from pathlib import Path

from deploy.local.errors import StackError

HOST = "127.0.0.1"
PORT_FIRST = 20_000
PORT_LAST_DEFAULT = 32_767
TRIES_MAX = 200
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_held: set[int] = set()


def free_port(remembered: int | None = None) -> int:
    """Pick a free port, the remembered one if it still is, and hold it until this process ends.

    Between the choice and the moment when a server of ours listens there, nobody else may take it: neither a second
    choice, of this process or another, nor the system for an outgoing connection (see `_hold`).

    A port of the range that the system gives to outgoing connections is avoided: when a server is killed and
    restarted, a client that retries in between may be given the very same local port and connect to itself, and the
    server can never bind it again.

    Raises:
        StackError: no port is free.
    """
    if remembered and _hold(remembered, may_be_known=True):
        return remembered
    chooser = random.SystemRandom()
    for _ in range(TRIES_MAX):
        port = chooser.randint(PORT_FIRST, _port_last())
        if _hold(port, may_be_known=False):
            return port
    raise StackError(
        f"No free TCP port found on {HOST} between {PORT_FIRST} and {_port_last()} in {TRIES_MAX} tries.",
        "end programs that hold ports (`ss -ltn` lists them), or name ports that are free.",
    )


def _hold(port: int, *, may_be_known: bool) -> bool:
    """Bind the port without listening; a port that `may_be_known` may be held already or have connections in TIME_WAIT.

    On Linux a server that sets SO_REUSEADDR, as each of ours does, may bind and listen beside a socket that only holds
    the port, while one that does not set it, as here, may not: this is what makes the choice exclusive. Elsewhere the
    holder would be in the server's way, so it lets go, and only this process remembers its choice.
    """
    if port in _held and not may_be_known:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        try:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, may_be_known)
            holder.bind((HOST, port))
        except OSError:
            return False
        if sys.platform == "linux" and port not in _held:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.detach()  # stays bound for the rest of this process
    _held.add(port)
    return True


def _port_last() -> int:
    try:
        ephemeral_first = int(_EPHEMERAL_RANGE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return PORT_LAST_DEFAULT
    # A machine may hand out every port; then there is no safe range, and the default is as good as any.
    return ephemeral_first - 1 if ephemeral_first > PORT_FIRST + TRIES_MAX else PORT_LAST_DEFAULT
