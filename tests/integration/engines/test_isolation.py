"""The tiers of isolation on this machine: what an enemy tries is denied, by the wall and without it, and what holds
is said honestly. And an engine's process that floods its host.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from integration.engines.asking import ask, collect, whole
from lading_node.engines import attempts, child, launch
from lading_node.engines import wall as wall_
from lading_node.engines.cgroup import Group
from lading_node.engines.child import ChildEngine
from lading_node.engines.confine import Bounds
from lading_node.engines.errors import EngineError
from lading_node.engines.port import EngineSpec, Failed, Finished, Generate, Score
from lading_node.engines.probe import Probe, probe_machine, probe_process
from lading_node.engines.wall import Room, Wall, find_wall, wall_command
from tools import missing

TOY = EngineSpec("memory", context=100_000)
NO_WALL = "there is none in this test"


def wall_here() -> Wall:
    found = find_wall()
    if isinstance(found, str):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(found)
    return found


def check(found: Probe) -> None:
    if not found.passed and not os.environ.get("CI") and os.getuid():
        pytest.skip(f"this machine does not let an ordinary user confine a process: {found.failed}")
    assert found.failed == ()
    assert found.passed
    assert set(found.held) == {one.__name__ for one in attempts.ATTEMPTS}


def test_everything_that_an_enemy_tries_behind_the_wall_is_denied(tmp_path: Path) -> None:
    wall = wall_here()
    before = set(Path.home().glob(".lading-probe-*"))  # of probes that others run, or left
    found = asyncio.run(probe_process(tmp_path, wall=wall))
    check(found)
    assert {"bubblewrap", "network", "files", "disk", "syscalls", "capabilities"} <= set(found.limits)
    assert list(tmp_path.iterdir()) == []
    assert set(Path.home().glob(".lading-probe-*")) <= before


def test_and_so_it_is_without_the_wall_by_what_a_process_does_to_itself(tmp_path: Path) -> None:
    found = asyncio.run(probe_process(tmp_path, wall=NO_WALL))
    check(found)
    assert "bubblewrap" not in found.limits


def test_an_ordinary_user_s_node_is_isolated_too() -> None:
    """Groups and mounts are root's; a user has namespaces instead."""
    if os.getuid() != 0:
        pytest.skip("the tests above are an ordinary user's already")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        os.chmod(folder, 0o777)
        program = f"""
import asyncio, msgspec
from pathlib import Path
from lading_node.engines.probe import probe_process
for wall in (None, "none"):
    print(msgspec.json.encode(asyncio.run(probe_process(Path({folder!r}), wall=wall))).decode())
"""
        try:
            done = subprocess.run(
                [sys.executable, "-c", program],
                user=1234,
                group=1234,
                extra_groups=[],
                cwd="/",
                env={"HOME": folder},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        except PermissionError:
            pytest.skip("this Python lies in a folder that only root may read")
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        found = json.loads(line)
        assert found["failed"] == []
        assert {"users", "threads", "memory"} <= set(found["limits"])


def test_the_attempts_succeed_where_nothing_confines_them(tmp_path: Path) -> None:
    """Or the tests above would show nothing."""
    canary = tmp_path / "canary"
    canary.write_text("the secret")
    (tmp_path / "scratch").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        told = {
            "canaries": {str(canary): "the secret"},
            "places": [str(tmp_path)],
            "listeners": [["AF_INET", "127.0.0.1", listener.getsockname()[1]]],
            "parent": os.getpid(),
            "quota": 4 << 20,
            "memory": 64 << 20,
            "scratch": str(tmp_path / "scratch"),
        }
        done = subprocess.run(
            [sys.executable, attempts.__file__],
            input=json.dumps(told),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    got = {line["name"]: line["got"] for line in map(json.loads, done.stdout.splitlines()) if "name" in line}
    assert list(got) == [one.__name__ for one in attempts.ATTEMPTS]
    always = {"read_host", "write_host", "ipv4", "netlink", "signals", "threads", "processes", "disk", "memory"}
    assert {name for name in always if not got[name]} == set()
    assert (tmp_path / "mark").exists()


def test_a_wall_that_is_none_is_found_out(tmp_path: Path) -> None:
    """A program that calls itself bubblewrap and only starts what it is given."""
    fake = tmp_path / "bwrap"
    fake.write_text('#!/bin/sh\nwhile [ "$1" != "--" ]; do shift; done\nshift\nexec "$@"\n')
    fake.chmod(0o755)
    found = asyncio.run(probe_process(tmp_path, wall=Wall(str(fake), True)))
    assert not found.passed
    assert "not tried" in found.failed[0]


def test_a_probe_has_a_deadline_and_never_raises(tmp_path: Path) -> None:
    slow = asyncio.run(probe_process(tmp_path, deadline=0.001))
    assert not slow.passed
    assert "did not end within 0.001 s" in slow.failed[0]
    nowhere = asyncio.run(probe_process(tmp_path / "nowhere"))
    assert not nowhere.passed
    assert "could not be made" in nowhere.failed[0]
    assert list(tmp_path.iterdir()) == []


def test_a_wall_that_leaves_something_behind_does_not_hold_up_the_probe(tmp_path: Path) -> None:
    """As bubblewrap does, killed in its first moments: what it leaves has the pipes open and waits for ever."""
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\nsleep 1000 &\nwait\n")
    fake.chmod(0o755)

    async def probe() -> Probe:
        async with asyncio.timeout(20):
            return await probe_process(tmp_path, wall=Wall(str(fake), True), deadline=0.5)

    assert "did not end within 0.5 s" in asyncio.run(probe()).failed[0]


def test_the_machine_is_probed_tier_by_tier(tmp_path: Path) -> None:
    found = asyncio.run(probe_machine(tmp_path))
    assert "P" in [one.tier for one in found]
    assert len({one.tier for one in found}) == len(found)
    for one in found:
        assert one.passed is not bool(one.failed)


def test_behind_the_wall_there_is_only_python_and_the_agent(tmp_path: Path) -> None:
    wall = wall_here()
    for name in ("agent", "scratch"):
        (tmp_path / name).mkdir()
    for name in ("agent/model", "agent/other", "secret"):
        (tmp_path / name).write_text(name)
    program = """
import json, os, socket
walk = [os.path.join(at, name) for at, _, names in os.walk(os.sys.argv[1]) for name in names]
rest = {name: sorted(os.listdir(name)) for name in ("/", "/etc", "/root", "/home", "/dev/shm") if os.path.isdir(name)}
numbers = [name for name in os.listdir("/proc") if name.isdigit()]
print(json.dumps([walk, rest, numbers, socket.gethostname(), os.getuid(), os.getcwd(), dict(os.environ)]))
"""
    room = Room(str(tmp_path / "scratch"), 1 << 20, (str(tmp_path / "agent" / "model"),))
    done = subprocess.run(
        [*wall_command(wall, room), sys.executable, "-I", "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"LANG": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr
    seen, rest, numbers, host, user, cwd, environment = json.loads(done.stdout)
    assert seen == [str(tmp_path / "agent" / "model")]
    assert rest["/etc"] == ["ld.so.cache"]
    assert rest.get("/dev/shm", []) == []
    for folder in ("/root", "/home"):  # shown only as far as Python itself lies there
        for name in rest.get(folder, []):
            assert any(path.startswith(f"{folder}/{name}/") for path in (sys.base_prefix, sys.prefix, *sys.path))
    assert numbers == ["1"]
    assert (host, user, cwd) == ("engine", 65534, str(tmp_path / "scratch"))
    assert set(environment) <= {"LANG", "PWD", "LC_CTYPE"}


def test_a_package_of_many_files_is_seen_by_its_folders(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    files = tuple(str(tmp_path / "shards" / f"{i}.safetensors") for i in range(200))
    command = wall_command(Wall("bwrap", True), Room(str(tmp_path / "scratch"), 1, files))
    assert str(tmp_path / "shards") in command
    assert len(command) < 200


WRITES = """
import os, sys
found = []
for folder, below, files in os.walk("/proc"):
    if folder == "/proc":
        below[:] = [name for name in below if not name.isdecimal() and name not in ("self", "thread-self")]
    for path in (os.path.join(folder, name) for name in files):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            found.append(path)
        except OSError:
            pass
try:
    with open("/proc/self/task/1/comm", "w") as comm:
        comm.write("named")
except OSError:
    found.append("no name")
print(*found)
"""


@pytest.mark.parametrize("device", [False, True])
def test_nothing_of_the_kernel_s_can_be_written_inside_the_wall(tmp_path: Path, device: bool) -> None:
    """A card's driver names its own threads in /proc, and does not start where it cannot. A root's process without any
    capability may write most settings otherwise."""
    wall = find_wall()
    if not isinstance(wall, Wall):
        missing(wall)
    command = [
        *wall_command(wall, Room(str(tmp_path), 1 << 20, device=device)),
        sys.executable,
        "-I",
        "-S",
        "-c",
        WRITES,
    ]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, env={}, check=True).stdout
    assert told.strip() == ("" if device else "no name")


def test_devices_are_bound_only_for_an_agent_that_may_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wall_, "_DEVICES", ("/dev/nul*",))
    for device in (False, True):
        command = wall_command(Wall("bwrap", True), Room("/scratch", 1, device=device))
        assert ("--dev-bind" in command) is device
        assert ("/dev/null" in command) is device


@pytest.mark.parametrize("wall", ["the machine's", NO_WALL])
def test_an_engine_says_what_holds_and_its_tier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wall: str) -> None:
    if wall == NO_WALL:
        monkeypatch.setattr(launch, "find_wall", lambda: NO_WALL)

    async def main() -> None:
        for tiered in (True, False):
            engine = ChildEngine(TOY, tmp_path, tiered=tiered)
            ready = await engine.start()
            walled = not isinstance(launch.find_wall(), str)
            assert ("bubblewrap" in ready.confinement) is walled
            assert ready.tier == ("P" if tiered and "network" in ready.confinement else "")
            assert b"lading_node.engines.runner" in Path(f"/proc/{ready.pid}/cmdline").read_bytes()
            assert b"bwrap" not in Path(f"/proc/{ready.pid}/cmdline").read_bytes()
            assert isinstance((await whole(engine, ask(20))).end, Finished)
            await engine.stop()
        assert list(tmp_path.iterdir()) == []

    asyncio.run(main())


# An engine's process under an enemy's control: it may say what it likes, and its host must stay well.

_GREETING = """
import os, sys, time
from lading_node.engines import wire
from lading_node.engines.port import Ready, Run, Started
from lading_protocol.framing import Frames
frames = Frames()
def hear():
    while True:
        for payload in frames.feed(os.read(0, 1 << 18)):
            return wire.to_engine.decode(payload)
def say(message):
    os.write(1, wire.encode(message))
hear()
say(Ready("enemy", "1", (), os.getpid(), 0))
"""
_FLOODS = {
    "its error output": 'while True: os.write(2, b"x" * 65536)',
    "answers to nobody": 'while True: say(Run("nobody", 0, (1,), "x" * 1000))',
    "pongs": "while True: say(wire.Pong())",
    "text without end": 'hear()\nsay(Started("a", 1, bytes(32)))\nwhile True: say(Run("a", 0, (1,), "x" * 100_000))',
    "no message at all": 'while True: os.write(1, b"\\0\\0\\0\\5hello")',
    "a frame over the limit": 'os.write(1, b"\\x7f\\xff\\xff\\xff" + b"x" * 100)\ntime.sleep(60)',
}


@pytest.fixture
def enemy(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program in the place of the engine's."""

    def plant(code: str) -> None:
        def prepare(spec: EngineSpec, scratch: Path) -> launch.Launch:
            command = (sys.executable, "-c", _GREETING + code)
            return launch.Launch(command, {"PATH": "/usr/bin:/bin"}, Bounds(str(scratch)), Group())

        monkeypatch.setattr(child, "prepare", prepare)

    return plant


@pytest.mark.parametrize("flood", _FLOODS)
def test_an_engine_that_floods_its_host_is_killed(enemy: Callable[[str], None], tmp_path: Path, flood: str) -> None:
    enemy(_FLOODS[flood])

    async def main() -> None:
        engine = ChildEngine(TOY, tmp_path)
        codes = []
        try:
            await engine.start()
            async with asyncio.timeout(20):
                events = [event async for event in engine.generate(Generate("a", ask(10)))]
            codes += [event.code for event in events if isinstance(event, Failed)]
        except EngineError as error:  # it was killed before anybody asked
            codes.append(error.failure)
        assert codes[-1:] in (["agent_error"], ["engine_error"], ["engine_died"])
        assert not engine.health().alive
        await engine.stop()

    asyncio.run(main())


def test_cancelled_requests_and_many_scores_are_no_flood(tmp_path: Path) -> None:
    """What an honest engine sends for requests that were given up is on its way already."""

    async def main() -> None:
        engine = ChildEngine(TOY, tmp_path)
        await engine.start()
        for i in range(60):
            events = engine.generate(Generate(f"gone-{i}", ask(5000, temperature=0.0)))
            async for _ in events:
                break
            await events.aclose()  # type: ignore[attr-defined]
        ids = tuple((await collect(engine, Generate("ids", ask(200, temperature=0.0)))).ids)
        for i in range(20):
            assert not isinstance(await engine.score(Score(f"score-{i}", ask(200, temperature=0.0), ids)), Failed)
        assert engine.health().alive
        await engine.stop()

    asyncio.run(main())


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1])
def test_a_start_that_is_given_up_leaves_nothing(tmp_path: Path, delay: float) -> None:
    """At whatever moment: while it is prepared, while it is spawned, while it loads."""

    async def main() -> None:
        starting = asyncio.ensure_future(ChildEngine(TOY, tmp_path).start())
        await asyncio.sleep(delay)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert list(tmp_path.iterdir()) == []
        await asyncio.sleep(0.2)

    def held() -> tuple[int, set[Path]]:
        return len(os.listdir("/proc/self/fd")), set(Path("/sys/fs/cgroup").rglob(f"lading-{os.getpid()}-*"))

    uvloop.run(main())  # what a first loop keeps for the next ones
    before = held()
    uvloop.run(main())
    assert held() == before


def test_the_command_shows_every_tier_and_keeps_its_folder_to_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lading.cli.main import main

    folder = tmp_path / "node"
    assert main(["node", "probe", "--data", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["tier"] for one in found} == {"W", "P"}
    assert all(set(one) >= {"passed", "held", "failed", "took_ms"} for one in found)
    assert folder.stat().st_mode & 0o077 == 0
    assert main(["node", "probe", "--data", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "what failed" in shown
    assert "landlock" in shown
