#!/usr/bin/env python3
"""Compiles the contracts and writes their ABI and bytecode as the package data that Python users load.

`--check` writes nothing and fails when a committed file differs from the sources. Knows nothing of chains. Needs Node;
the output does not depend on the machine, because the bytecode carries no metadata.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "lading_contracts" / "abi"
CONTRACTS = ("AICoin", "AgentRegistry", "Settlement", "Staking", "AuditCourt")


def forge(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the pinned forge in the contracts folder, installing the pinned tools the first time; exits 3 without Node."""
    if shutil.which("npx") is None:
        sys.exit("Node.js is not installed: the contracts cannot be compiled here. The committed ABI files still work.")
    if not (ROOT / "node_modules" / ".bin" / "forge").exists():
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
        subprocess.run(install, cwd=ROOT, check=True, stdout=sys.stderr)
    command = ["npx", "--no-install", "forge", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False, text=True, capture_output=True)


def render(name: str) -> str:
    """The text of one package data file; the ABI in a fixed order, so that a diff shows only what changed."""
    artifact = json.loads((ROOT / "out" / f"{name}.sol" / f"{name}.json").read_text())
    abi = sorted(artifact["abi"], key=lambda entry: (entry["type"], entry.get("name", ""), json.dumps(entry)))
    content = {"contractName": name, "abi": abi, "bytecode": artifact["bytecode"]["object"]}
    return json.dumps(content, indent=1) + "\n"


def main() -> int:
    build = forge("build", "src")
    if build.returncode != 0:
        sys.stderr.write(build.stdout + build.stderr)
        return 1
    stale = []
    for name in CONTRACTS:
        path = TARGET / f"{name}.json"
        text = render(name)
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            TARGET.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if "--check" in sys.argv and stale:
        print(f"out of date: {', '.join(stale)}; run `make abi`")
        return 1
    print(f"written: {', '.join(stale)}" if stale else "ABI files are up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
