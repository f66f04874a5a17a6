"""A container engine for tests and for continuous integration: the one that is there, or one of our own until we leave.

Our own is a dockerd with its own data root, exec root, pid file and socket, and without a bridge: nothing that it runs
can have a network, and it shares nothing with an engine that somebody else may start later.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SYSTEM = "/var/run/docker.sock"
START_S = 30.0
STOP_S = 20.0
_PR_SET_PDEATHSIG = 1


class NoEngine(Exception):
    """No engine can be had here; the text says why."""


def reachable() -> str:
    """The URL of an engine that answers: of DOCKER_HOST, or the system's own; "" for none."""
    url = os.environ.get("DOCKER_HOST", f"unix://{SYSTEM}")
    return url if url.startswith("unix://") and _answers(url.removeprefix("unix://")) else ""


@contextmanager
def ensure(folder: Path | None = None) -> Iterator[str]:
    """The URL of an engine. One that had to be started is stopped at the end; `folder` keeps its images. Raises
    NoEngine."""
    if url := reachable():
        yield url
        return
    if reason := unable():
        raise NoEngine(reason)
    with tempfile.TemporaryDirectory(prefix="lading-engine-", ignore_cleanup_errors=True) as run:
        data = folder or Path(run) / "data"
        data.mkdir(parents=True, exist_ok=True)
        process = _start(data, Path(run))
        try:
            yield _wait(process, Path(run))
        finally:
            _stop(process)
            if folder is None:
                shutil.rmtree(data, ignore_errors=True)


def unable() -> str:
    """Why no engine of our own can be started; "" when it can."""
    if os.geteuid() != 0:
        return "no container engine answers, and only root can start one"
    if shutil.which("dockerd") is None:
        return "no container engine answers, and dockerd is not installed (apt-get install docker.io)"
    return ""


def _start(data: Path, run: Path) -> subprocess.Popen[bytes]:
    (run / "daemon.json").write_text(json.dumps(settings(data, run)))
    with (run / "log").open("wb") as log:
        return subprocess.Popen(
            ["dockerd", "--config-file", str(run / "daemon.json")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )


def _die_with_parent() -> None:
    """An engine that nobody stops would hold its containers and its disk for good."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def settings(data: Path, run: Path) -> dict[str, object]:
    """gVisor, where it is installed, as it must be told on kernels where it can use neither kvm nor systrap."""
    made: dict[str, object] = {
        "data-root": str(data),
        "exec-root": str(run / "exec"),
        "pidfile": str(run / "pid"),
        "hosts": [f"unix://{run}/sock"],
        "bridge": "none",
        "iptables": False,
        "log-level": "warn",
    }
    if runsc := shutil.which("runsc"):
        made["runtimes"] = {"runsc": {"path": runsc, "runtimeArgs": ["--network=none", "--platform=ptrace"]}}
    return made


def _wait(process: subprocess.Popen[bytes], run: Path) -> str:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        if _answers(str(run / "sock")):
            return f"unix://{run}/sock"
        time.sleep(0.02)
    lines = (run / "log").read_text(errors="replace").strip().splitlines()
    raise NoEngine(f"dockerd does not start: {lines[-1] if lines else 'it says nothing'}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(path: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(2)
            link.connect(path)
            link.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return link.recv(64).startswith(b"HTTP/1.")
    except OSError:
        return False
