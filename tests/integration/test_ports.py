"""A port that was chosen for a server of ours stays its own until that server listens there."""

import random
import socket
import sys

import pytest

from deploy.local.errors import StackError
from deploy.local.ports import HOST, free_port

NOBODY_ELSE = pytest.mark.skipif(sys.platform != "linux", reason="a port can be held for somebody else on Linux only")


def choose_only(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random.SystemRandom, "randint", lambda *_: port)


def test_no_port_is_chosen_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    choose_only(free_port(), monkeypatch)
    with pytest.raises(StackError, match="No free TCP port found"):
        free_port()


@NOBODY_ELSE
def test_a_chosen_port_is_taken_for_another_process() -> None:
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind((HOST, free_port()))


def test_a_port_where_a_stranger_listens_is_not_chosen_even_if_remembered() -> None:
    with socket.create_server((HOST, 0)) as stranger:
        port = stranger.getsockname()[1]
        assert free_port(port) != port


def test_a_server_listens_on_its_port_and_again_after_it_ended_amid_a_connection() -> None:
    port = free_port()
    for _ in range(2):
        with socket.create_server((HOST, port)) as server, socket.create_connection((HOST, port)):
            server.accept()[0].close()  # the server's end closes first: the connection stays in TIME_WAIT
    assert free_port(port) == port
