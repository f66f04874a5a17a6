#!/usr/bin/env python3
"""Runs the pinned forge in the contracts folder, and installs the pinned tools the first time. Knows no contract.

By hand: `python contracts/tools/forge.py test`. Not `npx forge test`: the npm launcher exits with 0 when tests fail.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NO_NODE = "Node.js is not installed: the contracts can be neither compiled nor measured; the committed ABI files work"


def available() -> bool:
    """Whether this machine has what forge and the compiler need."""
    return shutil.which("node") is not None and shutil.which("npm") is not None


def binary() -> Path:
    """The program itself, behind npm's launcher; installed first if need be. Raises FileNotFoundError elsewhere."""
    packages = ROOT / "node_modules" / "@foundry-rs"
    if not packages.exists():
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
        subprocess.run(install, cwd=ROOT, check=True, stdout=sys.stderr)
    for candidate in sorted(packages.glob("forge-*/bin/forge*")):
        return candidate
    raise FileNotFoundError(f"npm installed no forge for this platform under {packages}")


def forge(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The finished run; its output is the caller's to print."""
    return subprocess.run([str(binary()), *arguments], cwd=ROOT, check=False, text=True, capture_output=True)


def main() -> int:
    if not available():
        sys.stderr.write(NO_NODE + "\n")
        return 3
    return subprocess.run([str(binary()), *sys.argv[1:]], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
