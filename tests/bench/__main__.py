"""Runs benchmarks as processes of their own: their JSON lines to stdout as they come, then a table of each.

`python -m tests.bench [NAME ...] [--quick] [--from-nothing] [--write [PAGE]]`. A bar that does not hold is shown as
such; the exit code is 1 only when a benchmark crashed or wrote what is no result.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from . import ROOT, page
from .report import BadLine, Line, emit, read, table

LIMIT_SECONDS = 1800.0
# What a benchmark ends with where the device that it is about is not there: nothing is wrong, and nothing measured.
LACKING = 77
# Four configurations of half an hour and more, each kept once it is measured: see bench_audit.
LIMITS = {"audit": 4 * 3600.0}


def commands() -> dict[str, list[str]]:
    """By name. Every bench_NAME.py beside this file is one."""
    return {
        path.stem.removeprefix("bench_"): ["-m", f"{__package__}.{path.stem}"]
        for path in sorted(Path(__file__).parent.glob("bench_*.py"))
    }


class Outcome:
    """What a benchmark found, and what went wrong in it, in words. `lacking`: its device is not in this machine."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.trouble = ""
        self.lacking = False


def run(arguments: list[str], limit: float = LIMIT_SECONDS) -> Outcome:
    """One benchmark to its end, or `limit` seconds; its lines are passed on, complete, as they come."""
    outcome = Outcome()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    began = time.monotonic()
    late = threading.Timer(limit, _kill, [process])
    late.start()
    try:
        for text in process.stdout:
            try:
                found = read(text)
            except BadLine as error:
                outcome.trouble = str(error)
                continue
            emit(found)
            outcome.lines.append(found)
        code = process.wait()
        if time.monotonic() - began >= limit:
            outcome.trouble = f"it was not done after {limit / 60:.0f} minutes"
        elif code == LACKING and not outcome.lines:
            outcome.lacking = True
        elif code:
            outcome.trouble = f"it ended with {code}"
        elif not outcome.lines:
            outcome.trouble = outcome.trouble or "it found nothing"
    finally:
        late.cancel()
        # Its own processes go with it, also when it crashed or we are interrupted.
        _kill(process)
        process.wait()
        process.stdout.close()
    return outcome


def _kill(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def main() -> int:
    known = commands()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(known)}; all by default")
    parser.add_argument("--quick", action="store_true", help="few rounds: a check that it runs, not a result")
    parser.add_argument("--from-nothing", action="store_true", help="demo: also install and play it in a new checkout")
    parser.add_argument("--write", nargs="?", type=Path, const=page.PAGE, metavar="PAGE", help="put the tables there")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.names if name not in known]:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(known)}")
    if chosen.quick and chosen.write:
        parser.error("--quick gives no figures that are worth keeping: leave out --write")
    machine = page.hardware()
    outcomes: dict[str, Outcome] = {}
    for name in chosen.names or known:
        print(f"bench {name} …", file=sys.stderr, flush=True)
        more = ["--quick"] if chosen.quick else []
        more += ["--from-nothing"] if chosen.from_nothing and name == "demo" else []
        outcomes[name] = run([*known[name], *more], LIMITS.get(name, LIMIT_SECONDS))
    for name, outcome in outcomes.items():
        lacking = ": not measured, this machine has no device for it" if outcome.lacking else ""
        print(f"\n{name}" + (f": CRASHED, {outcome.trouble}" if outcome.trouble else lacking))
        print(table(outcome.lines))
    print(f"\n{machine}")
    if chosen.write:
        whole = {name: outcome.lines for name, outcome in outcomes.items() if outcome.lines and not outcome.trouble}
        page.write(chosen.write, whole, machine)
        print(f"written to {chosen.write}")
    return 1 if any(outcome.trouble for outcome in outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
