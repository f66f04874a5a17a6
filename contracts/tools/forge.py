"""Runs the pinned forge in the contracts folder, and installs the pinned tools the first time. Knows no contract."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NO_NODE = "Node.js is not installed, so the contracts can be neither compiled nor measured; the committed ABI files still work"


def available() -> bool:
    """Whether this machine has what forge and the compiler need."""
    return shutil.which("node") is not None and shutil.which("npm") is not None


def forge(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The finished run; its output is the caller's to print. Raises CalledProcessError when the tools cannot be installed."""
    binary = ROOT / "node_modules" / ".bin" / "forge"
    if not binary.exists():
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
        subprocess.run(install, cwd=ROOT, check=True, stdout=sys.stderr)
    return subprocess.run([str(binary), *arguments], cwd=ROOT, check=False, text=True, capture_output=True)
