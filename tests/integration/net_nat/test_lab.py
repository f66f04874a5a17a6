"""The lab keeps what it promises: translation of each kind, delay, loss and partition, and nothing is left behind."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.net_nat.lab import PREFIX, Lab, Nat, Place, require_lab

_open: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _lab_needed() -> Iterator[None]:
    require_lab()
    yield
    while _open:
        _open.pop().close()


def shared(place: Place, port: int) -> socket.socket:
    """A socket of the place; several may have the port."""
    with place.inside():
        made = socket.socket()
    _open.append(made)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.settimeout(3)
    made.bind(("0.0.0.0", port))
    return made


def listen(place: Place, port: int) -> socket.socket:
    server = shared(place, port)
    server.listen()
    return server


def call(place: Place, address: str, port: int, *, source: int = 0, patience: float = 3.0) -> socket.socket:
    caller = shared(place, source)
    caller.settimeout(patience)
    caller.connect((address, port))
    return caller


def accept(server: socket.socket) -> tuple[socket.socket, tuple[str, int]]:
    accepted, where = server.accept()
    _open.append(accepted)
    return accepted, where


def seen(place: Place, server: Place, *, source: int) -> tuple[str, int]:
    """Where a call from the place's port comes from, as its receiver sees it."""
    accepting = listen(server, 7000)
    call(place, server.address, 7000, source=source)
    return accept(accepting)[1]


def reaches(lab: Lab, nat: Nat, *, called_before: bool) -> bool:
    """Whether a stranger gets in at the port from which the home called someone (or the stranger itself)."""
    one, two = lab.public("one", "203.0.113.1"), lab.public("two", "203.0.113.2")
    home = lab.home("home", nat, "203.0.113.10")
    listen(home, 4101)
    accepting = listen(one, 7000)
    if called_before:
        call(home, one.address, 7000, source=4101)
        assert accept(accepting)[1][0] == "203.0.113.10"
    try:
        call(two, "203.0.113.10", 4101, patience=0.4)
    except OSError:
        return False
    return True


@pytest.mark.parametrize(("nat", "open_after"), [("full cone", True), ("restricted", False), ("symmetric", False)])
def test_who_gets_in(nat: Nat, open_after: bool) -> None:
    with Lab() as lab:
        assert reaches(lab, nat, called_before=False) is False
    with Lab() as lab:
        assert reaches(lab, nat, called_before=True) is open_after


@pytest.mark.parametrize("nat", ["full cone", "restricted", "symmetric"])
def test_whether_the_port_is_the_same_for_everyone(nat: Nat) -> None:
    with Lab() as lab:
        one, two = lab.public("one", "203.0.113.1"), lab.public("two", "203.0.113.2")
        home = lab.home("home", nat, "203.0.113.10")
        first, second = (seen(home, server, source=4101) for server in (one, two))
        assert {first[0], second[0]} == {"203.0.113.10"}
        assert (first[1] == second[1] == 4101) is (nat != "symmetric")


def test_delay_loss_partition_and_a_new_address() -> None:
    with Lab() as lab:
        server = lab.public("one", "203.0.113.1", delay=0.02)
        home = lab.home("home", "restricted", "203.0.113.10", delay=0.03)
        accepting = listen(server, 7000)
        began = time.perf_counter()
        caller = call(home, server.address, 7000)
        assert 0.1 <= time.perf_counter() - began < 0.4
        accepted, _ = accept(accepting)
        caller.setblocking(False)
        left = caller.send(bytes(1 << 20))  # in large segments, whose checksums nobody has computed yet
        assert left > 20_000
        while left:
            left -= len(accepted.recv(1 << 16))
        lab.split(("one",), ("home",))
        with pytest.raises(OSError, match="timed out"):
            call(home, server.address, 7000, patience=0.3)
        lab.heal()
        lab.move("home", "203.0.113.99")
        call(home, server.address, 7000)
        assert accept(accepting)[1][0] == "203.0.113.99"
        lab.lose(99)
        with pytest.raises(OSError, match="timed out"):
            call(home, server.address, 7000, patience=0.3)


def test_nothing_is_left_behind() -> None:
    ours = f"{PREFIX}{os.getpid()}*"

    def fail() -> None:
        with Lab() as lab:
            lab.home("home", "symmetric", "203.0.113.10", delay=0.01)
            assert list(Path("/run/netns").glob(ours))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(Path("/run/netns").glob(ours))
