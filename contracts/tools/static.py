#!/usr/bin/env python3
"""Runs slither over the contracts and compares what it finds with tools/explained.json: anything else is a failure.

Needs `pip install slither-analyzer` in an environment of its own (it wants another web3 than Lading), with that in
PATH. Works on a copy, because its compile clears the artefacts. Also fails when an explanation explains nothing.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forge import ROOT, binary

EXPLAINED: dict[str, dict[str, str]] = json.loads((ROOT / "tools" / "explained.json").read_text())
FLAGS = ("--filter-paths", "node_modules|test|script", "--exclude-informational", "--exclude-optimization")


def findings(report: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(check, Contract.function, slither's words)."""
    for one in report["results"].get("detectors", []):
        element = next(e for e in one["elements"] if e["type"] in ("function", "variable"))
        parent = element["type_specific_fields"]["parent"]
        name = element["name"]
        if parent["type"] == "function":
            name, parent = parent["name"], parent["type_specific_fields"]["parent"]
        yield one["check"], f"{parent['name']}.{name}", one["description"].strip()


def run() -> dict[str, Any]:
    """Slither's own report. Exits with its words when it wrote none."""
    with tempfile.TemporaryDirectory() as folder:
        project, out = Path(folder) / "contracts", Path(folder) / "report.json"
        ignored = shutil.ignore_patterns("node_modules", "out", "cache")
        shutil.copytree(ROOT, project, symlinks=True, ignore=ignored)
        (project / "node_modules").symlink_to(ROOT / "node_modules")
        environment = os.environ | {"PATH": f"{binary().parent}{os.pathsep}{os.environ['PATH']}"}
        command = ["slither", ".", *FLAGS, "--foundry-compile-all", "--json", str(out)]
        done = subprocess.run(command, cwd=project, env=environment, check=False, capture_output=True, text=True)
        if not out.exists():
            sys.exit(done.stdout + done.stderr)
        report: dict[str, Any] = json.loads(out.read_text())
        return report


def main() -> int:
    if shutil.which("slither") is None:
        sys.exit("slither is not in PATH: pip install slither-analyzer, in an environment of its own")
    seen: set[tuple[str, str]] = set()
    unexplained = []
    for check, where, words in findings(run()):
        known = EXPLAINED.get(check, {})
        seen.add((check, where if where in known else "*"))
        if where not in known and "*" not in known:
            unexplained.append(f"{check} {where}: {words}")
    idle = [f"{check} {where}" for check, ones in EXPLAINED.items() for where in ones if (check, where) not in seen]
    print("\n".join(unexplained + [f"explains nothing: {one}" for one in idle]) or f"clean: {len(seen)} explained")
    return 1 if unexplained or idle else 0


if __name__ == "__main__":
    sys.exit(main())
