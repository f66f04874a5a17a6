"""A test that cannot be ended ends the run, and says where it hung."""

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
HANGS = {
    "in uvloop": "uvloop.run(asyncio.Event().wait())",
    "in a task that ends in a wait": "asyncio.run(stubborn())",
    "in a thread that is waited for": "asyncio.run(asyncio.to_thread(time.sleep, 60))",
}
SCRATCH = """
import asyncio, time, uvloop

async def stubborn():
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.Event().wait()

def test_it():
    {hang}

def test_next():
    pass
"""


def run(folder: Path, hang: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(SCRATCH.format(hang=hang))
    (folder / "conftest.py").write_text(
        f"import sys\nsys.path.insert(0, {str(TESTS)!r})\nimport watchdog\nwatchdog.GRACE_SECONDS = 0.5\n"
        "from watchdog import pytest_runtest_protocol\n"
    )
    (folder / "pytest.ini").write_text("[pytest]\ntimeout = 0.5\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", str(folder)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize("where", HANGS)
def test_a_hang_that_no_signal_ends_ends_the_run(tmp_path: Path, where: str) -> None:
    done = run(tmp_path, HANGS[where])
    assert done.returncode == 1
    assert "test_it.py" in done.stderr
    assert "most recent call first" in done.stderr


def test_a_hang_that_a_signal_ends_fails_and_the_next_test_runs(tmp_path: Path) -> None:
    done = run(tmp_path, "time.sleep(60)")
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
