"""A small internet of network namespaces: public machines on one switch, and homes behind routers that translate.

Everything is made by the test and removed by it, also after a failure; what a killed run left is swept by the next one.
Needs root, `ip` and `nft`. Delay is ours, in user space: not every kernel has sch_netem. Knows nothing of Lading.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from integration.net_nat.cable import Cable
from tools import missing, require_program

Nat = Literal["full cone", "restricted", "symmetric"]

PREFIX = "ldlab"
_NETNS = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()

# What a router does with packets to itself: nothing is open to the outside, and nothing is answered.
_SHUT = """
table ip gate {
  chain input {
    type filter hook input priority 0
    iifname "wan" ct state new drop
  }
  chain forward {
    type filter hook forward priority 0
    iifname "wan" ct state new ct status & dnat == 0 drop
  }
}
"""
# Endpoint-independent mapping and filtering: whoever sends to a port that the home sent from gets in.
_CONE = """
table ip nat {
  map cone {
    type inet_service : ipv4_addr
    flags dynamic,timeout
    size 4096
    timeout 5m
  }
  chain pre {
    type nat hook prerouting priority -100
    iifname "wan" dnat to tcp dport map @cone
  }
  chain post {
    type nat hook postrouting priority 100
    oifname "wan" meta l4proto tcp update @cone { tcp sport : ip saddr }
    oifname "wan" masquerade
  }
}
"""
_MASQUERADE = """
table ip nat {{
  chain post {{
    type nat hook postrouting priority 100
    oifname "wan" masquerade {ports}
  }}
}}
"""
_RULES: dict[Nat, str] = {
    "full cone": _CONE,
    "restricted": _MASQUERADE.format(ports=""),  # the kernel keeps the port and lets in whom the home has called
    "symmetric": _MASQUERADE.format(ports="fully-random"),  # a port of its own for every place that is called
}


def require_lab() -> None:
    """Skips the test here, or fails it in CI, where namespaces cannot be had."""
    if os.geteuid() != 0:
        missing("network namespaces need root")
    for program in ("ip", "nft"):
        require_program(program)
    try:
        _ip(f"netns add {PREFIX}{os.getpid()}try", f"netns del {PREFIX}{os.getpid()}try")
    except LabError as error:
        missing(f"this kernel gives us no network namespace: {error}")


class LabError(Exception):
    """A command of the lab failed; the text is what it said."""


class Place:
    """One namespace. `address` is what it is called by within its own network, `outside` what the others see."""

    def __init__(self, name: str, full: str, address: str, outside: str) -> None:
        self.name, self.full, self.address, self.outside = name, full, address, outside

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread's new sockets belong to the namespace meanwhile; no await may happen in the block."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            with (_NETNS / self.full).open("rb") as there:
                _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)

    def enter(self) -> None:
        """Move this thread there for good."""
        with (_NETNS / self.full).open("rb") as there:
            _enter(there.fileno())

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.full, *words]

    def rules(self, text: str) -> None:
        """Adds nftables rules."""
        _run(self.command("nft", "-f", "-"), text)


class Lab:
    """Use as a context manager. The internet is 203.0.113.0/24; every home is 10.0.0.0/24, as homes are."""

    def __init__(self) -> None:
        self._prefix = f"{PREFIX}{os.getpid()}n{next(_numbers)}"
        self._ports = itertools.count()
        self._cables: list[Cable] = []
        self._outward: dict[str, str] = {}  # by place: its port of the switch
        self.places: dict[str, Place] = {}

    def __enter__(self) -> Lab:
        _sweep()
        try:
            self.internet = self._place("net", "", "")
            ip = f"-n {self.internet.full}"
            _ip(f"{ip} link add switch type bridge", f"{ip} link set switch up")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._remove()

    def public(self, name: str, address: str, *, delay: float = 0.0) -> Place:
        """A machine with an address of its own. `delay` is seconds each way to the switch."""
        place = self._place(name, address, address)
        self._plug(place, "wan", f"{address}/24", delay)
        _ip(f"-n {place.full} route add default via 203.0.113.254")
        return place

    def home(self, name: str, nat: Nat, address: str, *, delay: float = 0.0) -> Place:
        """A machine behind a router of its own, whose outer address is `address`."""
        router = self._place(f"{name}r", "10.0.0.254", address)
        place = self._place(name, "10.0.0.1", address)
        inner, outer = place.full, router.full
        _ip(
            f"-n {inner} link add eth0 type veth peer name lan netns {outer}",
            f"-n {inner} address add 10.0.0.1/24 dev eth0",
            f"-n {inner} link set eth0 up",
            f"-n {outer} address add 10.0.0.254/24 dev lan",
            f"-n {outer} link set lan up",
            f"-n {inner} route add default via 10.0.0.254",
        )
        self._plug(router, "wan", f"{address}/24", delay)
        with router.inside():
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        router.rules(_SHUT + _RULES[nat])
        self._outward[name] = self._outward[f"{name}r"]
        return place

    # What befalls it

    def move(self, name: str, address: str) -> None:
        """The provider gives a home another outer address; what was under way is forgotten."""
        router = self.places[f"{name}r"]
        ip = f"-n {router.full}"
        _ip(f"{ip} address flush dev wan", f"{ip} address add {address}/24 dev wan")
        router.outside = self.places[name].outside = address

    def split(self, *groups: tuple[str, ...]) -> None:
        """No packet passes between the groups any more; places of no group reach everyone."""
        self.heal()
        drops = [
            f"iifname {{ {self._set(ours)} }} oifname {{ {self._set(theirs)} }} drop"
            for ours, theirs in itertools.permutations(groups, 2)
        ]
        self._weather("split", drops)

    def heal(self) -> None:
        _run(self.internet.command("nft", "-f", "-"), "table bridge split\ndelete table bridge split\n")

    def lose(self, percent: int) -> None:
        """Every packet of the internet vanishes with this chance, below 100."""
        self._weather("loss", [f"numgen random mod 100 < {percent} drop"])

    def _weather(self, name: str, rules: list[str]) -> None:
        body = "\n    ".join(rules)
        self.internet.rules(
            f"table bridge {name} {{\n  chain f {{\n    type filter hook forward priority 0\n    {body}\n  }}\n}}\n"
        )

    # The beginning and the end

    def _set(self, names: tuple[str, ...]) -> str:
        return ", ".join(self._outward[name] for name in names)

    def _place(self, name: str, address: str, outside: str) -> Place:
        place = self.places[name] = Place(name, f"{self._prefix}-{name}", address, outside)
        _ip(f"netns add {place.full}", f"-n {place.full} link set lo up")
        return place

    def _plug(self, place: Place, device: str, address: str, delay: float) -> None:
        port = f"p{next(self._ports)}"
        net = self.internet.full
        _ip(
            f"-n {place.full} link add {device} type veth peer name {port} netns {net}",
            f"-n {place.full} address add {address} dev {device}",
            f"-n {place.full} link set {device} up",
            f"-n {net} link set {port} up",
        )
        if delay:
            near, far = f"{port}a", f"{port}b"
            _ip(f"-n {net} link add {near} type veth peer name {far}")
            _ip(*(f"-n {net} link set {end} up" for end in (near, far)))
            with self.internet.inside():
                self._cables.append(Cable(port, near, delay))
            port = far
        _ip(f"-n {net} link set {port} master switch")
        self._outward[place.name] = port

    def _remove(self) -> None:
        for cable in self._cables:
            cable.close()
        for place in self.places.values():
            _delete(place.full)
        self.places.clear()


def _sweep() -> None:
    """Namespaces of runs that were killed."""
    for path in _NETNS.glob(f"{PREFIX}*"):
        owner = re.match(rf"{PREFIX}(\d+)", path.name)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            _delete(path.name)


def _delete(name: str) -> None:
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise LabError(f"setns: {os.strerror(ctypes.get_errno())}")


def _ip(*lines: str) -> None:
    for line in lines:
        _run(["ip", *line.split()])


def _run(command: list[str], given: str = "") -> None:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
