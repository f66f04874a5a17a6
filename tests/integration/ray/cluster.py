"""Ray nodes as processes of this namespace, started by Ray's own command, with a token of their own."""

import contextlib
import fcntl
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

_START = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
_IOCTL_FLAGS, _UP_RUNNING = 0x8914, 0x41


def raise_loopback() -> None:
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _IOCTL_FLAGS, struct.pack("16sH14x", b"lo", _UP_RUNNING))


def environment(folder: Path) -> dict[str, str]:
    """What a node of the cluster has in its environment: telemetry off, and the token that all of them share."""
    token = folder / "token"
    if not token.exists():
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
    return {
        **os.environ,
        "TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }


def start(env: dict[str, str], *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-P", "-c", _START, "start", *arguments, "--num-cpus=1", "--disable-usage-stats"]
    command += ["--object-store-memory=80000000", "--include-log-monitor=false"]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def head(env: dict[str, str], folder: Path, port: int) -> "subprocess.Popen[str]":
    more = ("--include-dashboard=false", f"--temp-dir={folder}", f"--ray-client-server-port={port + 1}")
    return start(env, "--head", f"--port={port}", *more)


def started(process: "subprocess.Popen[str]") -> None:
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said


# What runs here, by reading /proc of this namespace


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def worker_of(engine: int) -> int:
    """The Ray worker that an engine's process belongs to."""
    pid = engine
    while not command(pid).startswith("ray::"):
        pid = parent(pid)
        assert pid > 1
    return pid


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for other in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]:
        with contextlib.suppress(OSError, AssertionError):
            above = other
            while above > 1 and above != pid:
                above = parent(above)
            if above == pid and other != pid:
                found.append(other)
    return found


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
