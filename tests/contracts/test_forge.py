"""The Solidity suites (unit, fuzz, invariants), the committed ABI and the gas snapshot, through the native forge.

They need Node.js for the compiler. In CI its absence is a failure, elsewhere a skip with the reason.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONTRACTS = Path(__file__).parents[2] / "contracts"


@pytest.fixture(scope="module", autouse=True)
def node() -> None:
    if shutil.which("node") and shutil.which("npm"):
        return
    reason = "Node.js 20 is not installed, so the contracts cannot be compiled"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, *command], cwd=CONTRACTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}\n{done.stderr[-3000:]}"


@pytest.mark.timeout(600)
def test_every_solidity_suite_passes() -> None:
    run("tools/forge.py", "test")


@pytest.mark.timeout(300)
def test_the_committed_abi_is_what_the_sources_give() -> None:
    run("tools/abi.py", "--check")


def test_the_reference_of_events_and_errors_is_what_the_interfaces_say() -> None:
    run("tools/reference.py", "--check")


@pytest.mark.timeout(300)
def test_gas_stays_at_the_committed_snapshot() -> None:
    run("tools/forge.py", "snapshot", "--check", "--match-contract", "Gas")
