#!/usr/bin/env python3
"""Breaks the money path one small piece at a time and asks whether any test notices. Knows no contract's meaning.

`python contracts/tools/mutants.py [FILE ...] [--from N] [--list]` works on a copy of the project, compiles each mutant,
runs the suites that guard it and prints those that no test noticed, one JSON object a line, then how many were killed.
Mutants that change nothing anybody can observe are named in equivalent.json with the reason; a survivor that is not
named there makes the exit code 1.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from forge import ROOT, binary

# What is mutated, and the test files that guard it. Only they, and what they import, are compiled.
MONEY = ("Settlement", "Channels", "Pools", "Twin", "Deposits", "Attacks", "BadTokens")
COMMITTEE = ("AuditCourt", "LineageCourt", "Silence", "Sureties", "CourtReentrancy", "DisputeCoins", "Lottery")
GUARDS: dict[str, tuple[str, ...]] = {
    "src/Settlement.sol": MONEY,
    "src/Rows.sol": MONEY,
    "src/Coins.sol": ("Deposits", "BadTokens", "Settlement", "DisputeCoins", "Staking"),
    "src/Payments.sol": ("DisputeCoins", "market/Leases", "market/PromotionAuctions", "market/ShareAuctions"),
    "src/Staking.sol": ("Staking", "Lottery", "AuditCourt"),
    "src/AuditCourt.sol": ("AuditCourt", "Anchors", "DisputeCoins"),
    "src/Committee.sol": COMMITTEE,
    "src/AgentRegistry.sol": ("AgentRegistry", "Lineage", "RegistryAttacks", "RegistryFuzz"),
    "src/Leases.sol": ("market/Leases", "market/LeaseAttacks"),
    "src/PromotionAuctions.sol": ("market/PromotionAuctions", "market/PromotionAttacks", "market/PromotionPrices"),
    "src/ShareAuctions.sol": ("market/ShareAuctions", "market/ShareAttacks", "market/SharePrices"),
}
IMPORT = re.compile(r'from "(\.[^"]+)"')
SWAPS = (
    (r"(?<![<>=!-])>=(?!=)", ">"),
    (r"(?<![<>=!])<=(?!=)", "<"),
    (r" > ", " >= "),
    (r" < ", " <= "),
    (r"==", "!="),
    (r"!=", "=="),
    (r" \+ ", " - "),
    (r" - ", " + "),
    (r" \* ", " / "),
    (r" / ", " * "),
    (r"\+=", "-="),
    (r"-=", "+="),
    (r"&&", "||"),
    (r"\|\|", "&&"),
    (r"\badd\(", "sub("),
    (r"\bsub\(", "add("),
    (r"\bgt\(", "lt("),
    (r"\blt\(", "gt("),
    (r"\biszero\(", "("),
)
STATEMENT = re.compile(r"^\s+[A-Za-z_][\w.\[\]()+]*(\(.*\)| [-+*/|]?= .*|\+\+);$|^\s+(\+\+|--).*;$")
# Why nobody can tell the difference, by Mutant.key. Read by a person, so keep it true.
EQUIVALENT: dict[str, str] = json.loads((ROOT / "tools" / "equivalent.json").read_text())


class Mutant(NamedTuple):
    file: str
    line: int
    before: str
    after: str

    @property
    def key(self) -> str:
        return f"{self.file}:{self.before.strip()} => {self.after.strip()}"


def mutants(file: str) -> Iterator[Mutant]:
    """Every small change of the code lines of a file: comments, imports, declarations and pragmas are left alone."""
    inside = False
    for number, line in enumerate((ROOT / file).read_text().splitlines(), 1):
        code = line.strip()
        inside = inside or code.startswith(("function ", "constructor", "modifier "))
        if not inside or not code or code.startswith(("//", "///", "*", "/*", "function", "returns", "import")):
            continue
        plain = line.split(" //")[0]
        for pattern, other in SWAPS:
            for found in re.finditer(pattern, plain):
                yield Mutant(file, number, line, plain[: found.start()] + other + plain[found.end() :])
        if (code.startswith("require(") and code.endswith(");")) or (
            STATEMENT.match(plain) and not code.startswith(("return", "emit"))
        ):
            yield Mutant(file, number, line, "")


def keep_only(project: Path, tests: tuple[str, ...]) -> None:
    """Deletes what the tests do not import, so that a mutant compiles in seconds."""
    wanted: set[Path] = set()
    todo = [project / "test" / f"{name}.t.sol" for name in tests]
    while todo:
        path = todo.pop().resolve()
        if path in wanted:
            continue
        wanted.add(path)
        todo += [path.parent / found for found in IMPORT.findall(path.read_text())]
    for path in [*project.glob("src/**/*.sol"), *project.glob("test/**/*.sol"), *project.glob("script/*.sol")]:
        if path.resolve() not in wanted:
            path.unlink()


def judge(project: Path, one: Mutant) -> str:
    """`killed`, `survived` or `stillborn` (it does not compile)."""
    target = project / one.file
    whole = target.read_text()
    lines = whole.splitlines()
    lines[one.line - 1] = one.after
    target.write_text("\n".join(lines) + "\n")
    command = [str(binary()), "test", "--fail-fast"]
    try:
        run = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        return "killed"
    finally:
        target.write_text(whole)
    if run.returncode == 0:
        return "survived"
    return "stillborn" if "Compiler run failed" in run.stdout + run.stderr else "killed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", help=f"of {', '.join(GUARDS)}; all by default")
    parser.add_argument("--from", dest="first", type=int, default=0, help="skip the mutants before this one")
    parser.add_argument("--step", type=int, default=1, help="take every STEP-th mutant")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    chosen = parser.parse_args()
    todo = [one for file in chosen.files or GUARDS for one in mutants(file)][chosen.first :: chosen.step]
    if chosen.list:
        for at, one in enumerate(todo):
            print(at, f"{one.file}:{one.line}", one.before.strip(), "=>", one.after.strip() or "(nothing)")
        return 0
    counts = {"killed": 0, "survived": 0, "stillborn": 0, "equivalent": 0}
    for file in dict.fromkeys(one.file for one in todo):
        with tempfile.TemporaryDirectory() as folder:
            project = Path(folder) / "contracts"
            shutil.copytree(ROOT, project, symlinks=True, ignore=shutil.ignore_patterns("node_modules", "out", "cache"))
            (project / "node_modules").symlink_to(ROOT / "node_modules")
            keep_only(project, GUARDS[file])
            for one in (one for one in todo if one.file == file):
                fate = judge(project, one)
                why = EQUIVALENT.get(one.key, "") if fate == "survived" else ""
                fate = "equivalent" if why else fate
                counts[fate] += 1
                if fate in ("survived", "equivalent"):
                    place = f"{one.file}:{one.line}"
                    print(json.dumps({"fate": fate, "at": place, "mutant": one.key, "why": why}), flush=True)
    print(json.dumps(counts))
    return 1 if counts["survived"] else 0


if __name__ == "__main__":
    sys.exit(main())
