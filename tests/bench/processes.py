"""The other processes of a benchmark: each says one JSON line when it is ready, and is gone when the benchmark is.

Knows what CPU time a process has used; what it does is not its business.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Of this program before it binds itself to one of them.
_CORES = os.sched_getaffinity(0)


class Program:
    """`facts` is what it said when it was ready."""

    def __init__(self, process: subprocess.Popen[str], facts: dict[str, Any]) -> None:
        self.process = process
        self.facts = facts

    def tell(self, words: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        """Nothing more will be told: it ends by itself, with all that a program does when it ends."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None
        if code := self.process.wait(60):
            raise SystemExit(f"`{self.process.args}` ended with {code}")

    @property
    def cpu(self) -> float:
        return cpu_seconds(self.process.pid)


def on_core(core: int | None) -> list[str]:
    """What to put before a command so that it and its threads keep to one core; nothing where that cannot be."""
    return ["taskset", "-c", str(core)] if core in _CORES and shutil.which("taskset") else []


@contextlib.contextmanager
def keeping_to(core: int) -> Iterator[None]:
    """This program keeps to one core until the block ends, where the machine lets it."""
    if core not in _CORES:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def program(
    *arguments: str, environment: Mapping[str, str] | None = None, core: int | None = None
) -> Iterator[Program]:
    """Run Python with these arguments until the block ends. What it logs is shown when the block fails."""
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*on_core(core), sys.executable, *arguments],
            stdin=pipe,
            stdout=pipe,
            stderr=log,
            text=True,
            env=environment,
        )
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            if not said:
                raise SystemExit(f"`{' '.join(arguments)}` ended with {process.wait()} before it was ready")
            yield Program(process, json.loads(said))
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read()[-4000:])
            raise
        finally:
            process.kill()
            process.communicate()


def say_ready(facts: dict[str, Any]) -> None:
    """The program's side of it."""
    print(json.dumps(facts), flush=True)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process over all its threads, to the nanosecond; the usual counters tick a hundred times a second.

    A thread that has ended is not counted, so measure processes whose threads stay.
    """
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    return found


def tree_cpu(pid: int) -> float:
    """CPU seconds of a process and its descendants."""
    total = 0.0
    for each in tree(pid):
        with contextlib.suppress(FileNotFoundError):
            total += cpu_seconds(each)
    return total


def tree_memory(pid: int) -> int:
    """Bytes of memory that the process and its descendants hold now."""
    pages = 0
    for each in tree(pid):
        with contextlib.suppress(FileNotFoundError):
            pages += int(Path(f"/proc/{each}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def child_of(pid: int) -> int:
    """The only child of a process. Raises ValueError when there is another number of them."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)
