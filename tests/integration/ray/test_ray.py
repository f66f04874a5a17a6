"""The tests of a real Ray cluster, run in namespaces of their own: no port of it is seen outside, no process stays.

Ray listens on all of a machine's addresses; in here there is only the loopback.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import require_program

CASES = Path(__file__).with_name("cluster_cases.py")
NAMESPACES = ("--net", "--pid", "--fork", "--kill-child", "--mount-proc")


def require(there: bool, what: str) -> None:
    """In CI it must be there, elsewhere its absence is a reason to skip."""
    if not there:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


def unshare() -> list[str]:
    """A command that this user may run a program in namespaces with."""
    program = require_program("unshare")
    for more in ((), ("--user", "--map-root-user")):
        command = [program, *more, *NAMESPACES]
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    return []


@pytest.mark.timeout(250)
def test_a_real_cluster_of_two_nodes_is_one_host() -> None:
    require(importlib.util.find_spec("ray") is not None, "Ray is not installed: pip install 'lading[ray]'")
    command = unshare()
    require(bool(command), "no namespaces can be made here (unshare, as root or with user namespaces)")
    done = subprocess.run(
        [*command, sys.executable, "-P", "-m", "pytest", "-x", "-q", "--durations=8", str(CASES)],
        cwd=CASES.parents[3],
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    print(done.stdout)
