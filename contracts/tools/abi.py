#!/usr/bin/env python3
"""Compiles the contracts and writes their ABI and bytecode as the package data that Python users load.

`--check` writes nothing and fails when a committed file differs from the sources. Knows nothing of chains. Needs Node;
the output does not depend on the machine, because the bytecode carries no metadata.
"""

import json
import sys
from typing import Any

from forge import NO_NODE, ROOT, available, forge

TARGET = ROOT / "lading_contracts" / "abi"
CONTRACTS = (
    "AICoin",
    "AgentRegistry",
    "Settlement",
    "TimelockController",
    "Parameters",
    "Staking",
    "AuditCourt",
    "LineageCourt",
    "OfferBook",
    "ShareAuctions",
    "PromotionAuctions",
    "Leases",
)
# OpenZeppelin's own, deployed as it is.
EXTRA_SOURCES = ("node_modules/@openzeppelin/contracts/governance/TimelockController.sol",)


def render(name: str) -> str:
    """The text of one package data file; the ABI in a fixed order, so that a diff shows only what changed.

    `runtime` is what stands on the chain, but for what a constructor fixes: `immutables` says where those bytes are.
    """
    artifact = json.loads((ROOT / "out" / f"{name}.sol" / f"{name}.json").read_text())
    abi = sorted(artifact["abi"], key=lambda entry: (entry["type"], entry.get("name", ""), json.dumps(entry)))
    deployed = artifact["deployedBytecode"]
    content = {
        "contractName": name,
        "abi": abi,
        "bytecode": artifact["bytecode"]["object"],
        "runtime": deployed["object"],
        "immutables": _places(deployed.get("immutableReferences", {})),
    }
    return json.dumps(content, indent=1) + "\n"


def _places(references: dict[str, list[dict[str, Any]]]) -> list[list[int]]:
    return sorted([place["start"], place["length"]] for places in references.values() for place in places)


def main() -> int:
    if not available():
        sys.stderr.write(NO_NODE + "\n")
        return 3
    build = forge("build", "src", *EXTRA_SOURCES)
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
