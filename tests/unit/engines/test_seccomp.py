"""The filter of system calls, run by a small machine of our own: what it says to any call, on both architectures."""

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_node.engines import seccomp

ALLOWED, REFUSED, UNKNOWN = "allowed", errno.EPERM, errno.ENOSYS
PID = 4711
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
COLUMN = {"x86_64": 0, "aarch64": 1}
machines = st.sampled_from(sorted(ARCH))
words = st.integers(0, 2**64 - 1)


def verdict(code: bytes, arch: int, number: int, *arguments: int) -> object:
    """Run a program of loads, jumps and returns over the kernel's seccomp_data."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, arch, 0, *padded)
    steps = list(struct.iter_unpack("=HBBI", code))
    accumulator, at = 0, 0
    while True:
        operation, then, otherwise, value = steps[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x15:
                at += then if accumulator == value else otherwise
            case 0x35:
                at += then if accumulator >= value else otherwise
            case 0x45:
                at += then if accumulator & value else otherwise
            case 0x06:
                return ALLOWED if value == 0x7FFF0000 else value & 0xFFFF


def says(machine: str, number: int, *arguments: int, unix: bool = False) -> object:
    return verdict(seccomp.program(machine, PID, unix=unix), ARCH[machine], number, *arguments)


@given(machines, st.integers(0, 600), st.lists(words, max_size=6))
def test_every_call_gets_an_answer_and_what_is_listed_a_refusal(
    machine: str, number: int, arguments: list[int]
) -> None:
    column = COLUMN[machine]
    answer = says(machine, number, *arguments)
    assert answer in (ALLOWED, REFUSED, UNKNOWN)
    if number in seccomp._denied(column).values():
        assert answer == REFUSED
    assert (answer == UNKNOWN) == (number == seccomp._CLONE3[column])


@given(machines, st.integers(0, 600), words)
def test_another_architecture_s_calls_are_all_refused(machine: str, number: int, argument: int) -> None:
    other = ARCH["aarch64" if machine == "x86_64" else "x86_64"]
    assert verdict(seccomp.program(machine, PID, unix=False), other, number, argument) == REFUSED


@given(st.integers(0, 600), words)
def test_the_second_numbers_of_x86_are_all_refused(number: int, argument: int) -> None:
    assert says("x86_64", 0x40000000 | number, argument) == REFUSED


CONNECTED = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
kinds = st.builds(
    lambda kind, flags: kind | flags,
    st.integers(0, 15),
    st.sampled_from([0, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK]),
)


@given(machines, st.integers(0, 50), kinds)
def test_no_socket_but_pairs_between_processes_that_reach_nobody_else(machine: str, family: int, kind: int) -> None:
    column = COLUMN[machine]
    may = ALLOWED if family == socket.AF_UNIX and kind & 15 in CONNECTED else REFUSED
    assert says(machine, seccomp._SOCKET[column], family, kind) == REFUSED
    assert says(machine, seccomp._SOCKETPAIR[column], family, kind) == may
    assert says(machine, seccomp._SOCKET[column], family, kind, unix=True) == may


@pytest.mark.parametrize("machine", sorted(ARCH))
def test_a_card_s_driver_may_open_a_place_that_nobody_reaches(machine: str) -> None:
    column = COLUMN[machine]
    filtered = seccomp.program(machine, PID, unix=False, device=True)
    for name, number in seccomp._denied(column).items():
        assert verdict(filtered, ARCH[machine], number) == (ALLOWED if name in ("bind", "listen") else REFUSED)
    for family in range(50):
        for kind in range(16):
            assert verdict(filtered, ARCH[machine], seccomp._SOCKET[column], family, kind) == (
                ALLOWED if family == socket.AF_UNIX and kind in CONNECTED else REFUSED
            )


@given(machines, words)
def test_threads_start_and_processes_do_not(machine: str, flags: int) -> None:
    thread = bool(flags & 0x10000)
    assert says(machine, seccomp._CLONE[COLUMN[machine]], flags) == (ALLOWED if thread else REFUSED)


@given(machines, st.integers(0, 2**32 - 1))
def test_signals_and_limits_reach_nobody_else(machine: str, pid: int) -> None:
    column = COLUMN[machine]
    assert says(machine, seccomp._TGKILL[column], pid) == (ALLOWED if pid == PID else REFUSED)
    assert says(machine, seccomp._PRLIMIT[column], pid) == (ALLOWED if pid in (0, PID) else REFUSED)


@pytest.mark.parametrize("machine", sorted(ARCH))
def test_a_process_cannot_outlive_its_parent_or_type_for_it(machine: str) -> None:
    column = COLUMN[machine]
    assert says(machine, seccomp._PRCTL[column], 1) == REFUSED
    assert says(machine, seccomp._PRCTL[column], 15) == ALLOWED
    assert says(machine, seccomp._IOCTL[column], 0, 0x5412) == REFUSED
    assert says(machine, seccomp._IOCTL[column], 0, 0x5401) == ALLOWED


def test_the_numbers_are_those_of_the_kernel_s_headers() -> None:
    """Where the headers are installed: a wrong number would leave a door open and close another."""
    import re
    from pathlib import Path

    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    generic = Path("/usr/include/asm-generic/unistd.h")
    if not (header.exists() and generic.exists()):
        pytest.skip("the kernel's headers are not installed")
    for column, path in enumerate((header, generic)):
        found = re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", path.read_text())
        numbers = {name: int(number) for name, number in found}
        for name, number in seccomp._denied(column).items():
            assert numbers.get(name, number) == number, name
