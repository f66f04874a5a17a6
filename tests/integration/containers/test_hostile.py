"""Agents written by an enemy: each harms nothing but itself, and is named in one line."""

import asyncio
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from integration.containers.conftest import MEMORY, Quay, ask, order, value
from integration.containers.test_calls import failed, left_over
from integration.engines.asking import Answer
from lading_node.engines.port import Finished, Run, Tier
from tools import require_program

TIERS = pytest.mark.parametrize("tier", ["C", "G"])


def of(tier: Tier) -> dict[str, Any]:
    """Settings of a tier; skips where this machine has no gVisor. Its own kernel needs memory too."""
    if tier == "G":
        require_program("runsc")
    return {"tier": tier, "memory": MEMORY if tier == "C" else 4 * MEMORY}


@contextmanager
def listening() -> Iterator[dict[str, Any]]:
    """Every door of this machine that an agent might knock at; `knocks` are those that it reached."""
    knocks: list[str] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as v4, closing(socket.socket(socket.AF_UNIX)) as abstract:
        name = f"\0lading-test-{secrets.token_hex(8)}"
        abstract.bind(name)
        abstract.listen()
        for door in (v4, abstract):
            threading.Thread(target=_watch, args=(door, knocks), daemon=True).start()
        port = v4.getsockname()[1]
        yield {
            "v4": ["127.0.0.1", port],
            "v6": ["::1", port],
            "abstract": name,
            "knocks": knocks,
        }


def _watch(door: socket.socket, knocks: list[str]) -> None:
    try:
        link, _ = door.accept()
    except OSError:
        return
    link.close()
    knocks.append(str(door.family))


def test_an_agent_sees_a_bare_room(quay: Quay) -> None:
    async def main() -> None:
        async with quay.open() as (engine, _):
            room = await value(engine, "inside")
            assert (room["uid"], room["groups"]) == (65534, [65534])
            assert {room["status"][key] for key in ("CapEff", "CapBnd", "CapPrm")} == {"0000000000000000"}
            assert (room["status"]["NoNewPrivs"], room["status"]["Seccomp"]) == ("1", "2")
            assert room["limits"]["Max open files"] == "256"
            assert room["limits"]["Max core file size"] == "0"
            assert room["interfaces"] == ["lo"]
            assert room["processes"] == [1]
            assert not room["terminal"]
            assert "nameserver" not in room["resolver"].replace("nameserver 127.0.0.1", "")
            known = {"PATH", "LANG", "HOME", "TMPDIR", "HOSTNAME", "OMP_NUM_THREADS", "LC_CTYPE"}
            assert {name for name in room["environment"] if not name.startswith("ORT_")} <= known
            stdio = await value(engine, "stdio")
            assert stdio == {"raw": "", "read": ""}
            async with asyncio.timeout(5):  # the two streams of a container come in any order
                while "stray" not in engine.last_words():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert await value(engine, "echo", 1) == 1

    uvloop.run(main())


@TIERS
def test_an_agent_reaches_nobody_by_any_family_of_sockets(quay: Quay, tier: Tier) -> None:
    async def main() -> None:
        with listening() as doors:
            async with quay.open(**of(tier)) as (engine, ready):
                assert ready.tier == tier
                known = {key: doors[key] for key in ("v4", "v6", "abstract")}
                tried = await value(engine, "network", known | {"unix": quay.url.removeprefix("unix://")})
            assert set(tried) >= {"vsock", "vsock stream", "netlink", "packet", "raw", "alg", "abstract unix socket"}
            assert tried.pop("AF_INET SOCK_DGRAM") in ("done", "ENETUNREACH", "ECONNREFUSED"), "loopback is its own"
            assert tried.pop("AF_INET6 SOCK_DGRAM") in ("done", "ENETUNREACH", "ECONNREFUSED", "EADDRNOTAVAIL")
            # A user-space kernel answers some of these itself: of them only what leads out of it would matter.
            own = {"netlink"} if tier == "G" else set()
            assert {name for name, outcome in tried.items() if outcome == "done"} <= own, tried
            if tier == "C":
                assert {tried[name] for name in ("vsock", "vsock stream", "netlink")} == {"EPERM"}, tried
            assert doors["knocks"] == []

    uvloop.run(main())


def test_an_agent_gets_no_dangerous_call_of_the_kernel(quay: Quay) -> None:
    async def main() -> None:
        async with quay.open() as (engine, _):
            tried = await value(engine, "syscalls")
            assert len(tried) > 30
            assert set(tried.values()) <= {"EPERM", "ENOSYS"}, tried
            assert {tried[name] for name in ("io_uring_setup", "bpf", "keyctl", "unshare", "ptrace")} == {"EPERM"}
            assert tried["clone3"] == "ENOSYS", "so that libraries fall back"

    uvloop.run(main())


@TIERS
def test_an_agent_writes_and_reads_nothing_of_this_machine(quay: Quay, tmp_path: Path, tier: Tier) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    write = ["/etc/passwd", "/agent/agent.py", "/a", "/usr/lib/python3.11/os.py", "/sys/kernel/uevent_helper"]
    write += [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/self/oom_score_adj",
        "/dev/sda",
        "/dev/mem",
    ]
    read = ["/var/run/docker.sock", str(secret), "/proc/kcore", "/proc/1/root/etc/shadow", "/dev/vda", "/dev/kmsg"]
    read += [
        "/proc/keys",
        "/proc/timer_list",
        "/sys/firmware/acpi",
        "/root/.ssh/id_rsa",
        f"/proc/{os.getpid()}/environ",
    ]

    async def main() -> None:
        async with quay.open(**of(tier)) as (engine, _):
            tried = await value(engine, "files", {"write": write, "read": read})
            assert len(tried) == len(write) + len(read) + 1
            allowed = {name for name, outcome in tried.items() if outcome == "done"}
            # These two are empty or its own: masked by the engine, or a wish to be killed even sooner.
            assert allowed <= {"read /proc/keys", "read /proc/timer_list", "read /proc/kcore"}, allowed

    uvloop.run(main())


@TIERS
def test_what_an_agent_can_use_up_has_an_end(quay: Quay, tier: Tier) -> None:
    async def main() -> None:
        async with quay.open(**of(tier)) as (engine, _):
            if tier == "C":  # on gVisor it is the agent's kernel that meets the limit, see below
                forked = await value(engine, "fork")
                assert forked["children"] < 64
                assert forked["reason"] == "EAGAIN"
            filled = await value(engine, "fill")
            assert filled["/tmp"] == [16 << 20, "ENOSPC"]
            assert filled["/dev/shm"] == [16 << 20, "ENOSPC"]
            others = {folder: size for folder, (size, _) in filled.items() if folder not in ("/tmp", "/dev/shm")}
            assert set(others.values()) == {0}, filled
            assert await value(engine, "echo", 1) == 1

    uvloop.run(main())


def test_forks_on_gvisor_cost_the_agent_its_own_kernel(quay: Quay) -> None:
    async def main() -> None:
        async with quay.open(**of("G")) as (engine, _), quay.open() as (other, _):
            answer = await ask(engine, "fork")
            assert failed(answer.end, "engine_died") or json.loads(answer.text)["children"] < 64, answer.end
            assert await value(other, "echo", 1) == 1

    uvloop.run(main())


@TIERS
def test_a_memory_hog_is_named_and_others_live_on(quay: Quay, tier: Tier) -> None:
    async def main() -> None:
        async with quay.open(**of(tier)) as (hog, _), quay.open() as (other, _):
            began = time.monotonic()
            answer = await ask(hog, "memory")
            assert time.monotonic() - began < 60
            assert failed(answer.end, "resource_exhausted", "memory"), answer.end
            assert hog.health().memory <= MEMORY
            assert await value(other, "echo", 1) == 1

    uvloop.run(main())


FLOODS = {
    "text beyond the budget": ("flood", {"frame": f'{{"out":ID,"text":"{"x" * 1000}"}}'}),
    "text of nothing": ("flood", {"frame": '{"out":ID,"text":""}'}),
    "frames of nothing": ("flood", {"frame": ""}),
    "standard error": ("shout", None),
}


def test_floods_are_cut_off(quay: Quay) -> None:
    async def one(name: str) -> None:
        operation, input = FLOODS[name]
        async with quay.open() as (engine, _):
            answer = await ask(engine, operation, input, max_tokens=100)
            await asyncio.wait_for(engine._gone.wait(), 20)
            assert len(answer.ids) <= 100
            if name == "text beyond the budget":
                assert isinstance(answer.end, Finished)
                assert answer.end.finish == "length"
            else:
                assert failed(answer.end, "agent_error"), (name, answer.end)
            assert failed((await ask(engine, "echo", 1)).end, "engine_died")
            assert not engine.health().alive

    async def main() -> None:
        began = time.monotonic()
        await asyncio.gather(*map(one, FLOODS))
        assert time.monotonic() - began < 60

    uvloop.run(main())


DEEP = "[" * 100_000 + "]" * 100_000
LIES = {
    "a call that was never given": ('{"out":999,"text":"x"}', "call 999"),
    "a call of somebody else": ('{"done":0}', "call 0"),
    "an end twice": ('{"done":ID}', "has ended"),
    "ready again": ('{"ready":{"name":"a","operations":[]}}', "twice"),
    "two messages in one": ('{"out":ID,"done":ID}', "exactly one"),
    "none at all": ("{}", "exactly one"),
    "a field that is not": ('{"out":ID,"text":"x","tokens":5}', "unknown field"),
    "a number for a text": ('{"out":ID,"text":5}', "text"),
    "half a pair of characters": ('{"out":ID,"text":"\\ud800"}', ""),
    "bytes that are no text": ('{"out":ID,"text":"\x00"}', "not a message"),
    "depth": (f'{{"done":ID,"output":{DEEP}}}', ""),
    "a huge number": (f'{{"out":1{"0" * 400},"text":"x"}}', ""),
}


def test_a_lie_about_the_protocol_ends_the_agent_or_the_call(quay: Quay) -> None:
    """Several containers at a time: most of each one's life is its beginning and its end."""
    some = asyncio.Semaphore(4)

    async def one(name: str) -> None:
        frame, words = LIES[name]
        async with some, quay.open() as (engine, _):
            answer = await ask(engine, "lie", {"frame": frame})
            if name == "an end twice":
                answer = await ask(engine, "slow", {"seconds": 5})
            assert failed(answer.end, "agent_error", words), (name, answer.end)
            assert "\n" not in str(answer.end)
            assert len(answer.end.message) < 400  # type: ignore[union-attr]

    async def main() -> None:
        await asyncio.gather(*map(one, LIES))

    uvloop.run(main())


def test_frames_that_are_none(quay: Quay) -> None:
    """Lengths that nobody may reserve memory for, garbage, and half a frame that never ends."""

    async def one(data: str, code: str) -> None:
        async with quay.open(stall=1.0) as (engine, _):
            answer = await ask(engine, "raw", {"hex": data})
            assert failed(answer.end, code), (data, answer.end)

    async def main() -> None:
        bad = ("ffffffff", "00100001", "7fffffff" + "61" * 100, "00000003616263")
        await asyncio.gather(*(one(data, "agent_error") for data in bad), one("0000000a7b", "timeout"))

    uvloop.run(main())


def test_an_agent_that_ignores_everything_is_gone_within_a_second(quay: Quay) -> None:
    async def main() -> None:
        async with quay.open(slots=3) as (engine, ready):
            await value(engine, "survive")
            deaf = order("deaf")
            other = asyncio.ensure_future(ask(engine, "tell", {"pieces": 200, "pause": 0.02}))
            answer = Answer()
            await asyncio.sleep(0.1)
            asyncio.get_running_loop().call_later(0.1, engine.cancel, deaf.id)
            async for event in engine.generate(deaf):
                answer.add(event)
            assert answer.end == Finished(deaf.id, "cancelled", 0)
            began = time.monotonic()
            assert failed((await other).end, "agent_error", "told to end")
            assert time.monotonic() - began < 60
            await engine.stop()
            assert left_over(quay, engine) == 0
            assert not Path(f"/proc/{ready.pid}").exists()

    uvloop.run(main())


def test_a_fork_bomb_dies_with_its_container(quay: Quay) -> None:
    async def main() -> None:
        async with quay.open(stall=0.6) as (engine, ready):
            answer = await ask(engine, "bomb")
            assert failed(answer.end, "timeout"), answer.end
            began = time.monotonic()
            await asyncio.wait_for(engine._gone.wait(), 10)
            assert time.monotonic() - began < 60
            assert not Path(f"/proc/{ready.pid}").exists()

    uvloop.run(main())


def test_silence_costs_the_call_and_deafness_the_agent(quay: Quay) -> None:
    async def main() -> None:
        async with quay.open(stall=0.5) as (engine, _):
            quiet = await ask(engine, "slow", {"seconds": 30})
            assert failed(quiet.end, "timeout", "silent for 0.5 s")
            assert await value(engine, "echo", 1) == 1, "it obeyed"
            told = await ask(engine, "tell", {"pieces": 10, "pause": 0.1})
            assert isinstance(told.end, Finished)

    uvloop.run(main())


def test_a_caller_that_never_takes_its_answer_holds_up_nobody(quay: Quay) -> None:
    async def main() -> None:
        async with quay.open(slots=2) as (engine, _):
            stuck = engine.generate(order("tell", {"pieces": 20_000}, max_tokens=131_072, ahead=8))
            async for event in stuck:
                if isinstance(event, Run):
                    break
            await asyncio.sleep(0.3)
            assert [await value(engine, "echo", i) for i in range(20)] == list(range(20))
            await stuck.aclose()

    uvloop.run(main())
