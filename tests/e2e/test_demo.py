"""The demo itself, as a newcomer runs it: every point holds, KEEP serves, and nothing outlives it, however it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.timeout(400)


def left_running(folder: Path) -> list[str]:
    """Command lines of processes that work in this demo's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if str(folder) in line and state != "Z":
                found.append(line)
    return found


def nothing_left(folder: Path, limit: float = 15.0) -> bool:
    deadline = time.monotonic() + limit
    while left_running(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


@contextmanager
def demo(folder: Path, *flags: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-u", "-m", "lading_demo", "--folder", str(folder), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: "subprocess.Popen[str]", words: str) -> str:
    """What it prints up to and with the line that holds `words`."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"the demo ended without saying {words!r}:\n{seen}")


def test_every_point_holds(tmp_path: Path) -> None:
    folder, report = tmp_path / "demo", tmp_path / "report.json"
    with demo(folder, "--report", str(report)) as process:
        told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert json.loads(report.read_text())["failed"] == []
    assert "✗" not in told
    for words in ("the sum is zero to the wei", "text equals that of the unbroken run", "never flagged"):
        assert words in told
    assert nothing_left(folder), left_running(folder)


def test_keep_leaves_a_network_that_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with demo(folder, "--keep") as process:
        told = read_until(process, "Ctrl-C ends it")
        assert "✗" not in told, told
        url = re.search(r"curl -N (\S+)", told)
        key = re.search(r"Bearer (\S+)'", told)
        assert url is not None
        assert key is not None
        body = {
            "model": "lading-chat",
            "messages": [{"role": "user", "content": "What is 2 plus 2?"}],
            "temperature": 0,
        }
        answer = httpx.post(url[1], json=body, headers={"authorization": f"Bearer {key[1]}"}, timeout=30)
        assert "4" in answer.json()["choices"][0]["message"]["content"]
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        assert "nothing is left running" in rest
    assert nothing_left(folder), left_running(folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killing_the_demo_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "demo"
    with demo(folder) as process:
        read_until(process, "A consumer deposits")
        assert len(left_running(folder)) >= 6
        process.send_signal(number)
        process.wait(timeout=60)
    assert nothing_left(folder), left_running(folder)
