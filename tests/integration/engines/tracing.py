"""What an engine's process asks of the kernel, as strace saw it: whom it talked to, and what it wrote where.

Every try counts, also one that the kernel refused: an engine whose telemetry is off does not even try.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from lading_node.engines.launch import Launch

RUNNER = "lading_node.engines.runner"
_LINE = re.compile(r"(?P<pid>\d+) +(?P<call>\w+)\((?P<rest>.*)")
_TALK = frozenset({"socket", "connect", "bind", "listen", "accept", "accept4", "sendto", "sendmsg", "sendmmsg"})
_CHANGES = frozenset(
    {
        *("creat", "mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat", "renameat2", "rmdir", "unlink"),
        *("unlinkat", "link", "linkat", "symlink", "symlinkat", "truncate", "chmod", "fchmodat", "chown", "lchown"),
        *("fchownat", "setxattr", "lsetxattr", "utime", "utimes", "utimensat", "mount", "umount2", "chroot"),
    }
)
_OPENS = frozenset({"open", "openat", "openat2"})
_WRITING = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC|TMPFILE)")
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)(?:<(?P<at>[^>]*)>)?, )?"(?P<path>(?:[^"\\]|\\.)*)"')
_HARMLESS = ("/dev/null", "/dev/nvidia", "/dev/shm/nvidia")


def traced(launch: Launch, log: Path) -> Launch:
    """The same start under strace, which stays beside the process and not above it.

    Not with its filter of calls (--seccomp-bpf): what the engine's own filter refuses would then not be seen.
    """
    watch = ("strace", "-D", "-f", "-qq", "-y", "-s", "4096", "-e", "trace=%network,%file,%process", "-o", str(log))
    return launch._replace(command=(*watch, *launch.command))


def violations(lines: Iterable[str], scratch: str) -> list[str]:
    """The calls of the engine's process that talk, or that change anything outside of `scratch`; also programs that it
    starts. What bubblewrap did before it was the engine, to build the wall, does not count."""
    return [f"{call}({rest}"[:300] for call, rest in _engine_calls(lines) if _is_violation(call, rest, scratch)]


def _engine_calls(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    before: set[str] = set()
    engine = ""
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            continue
        pid, call, rest = found["pid"], found["call"], found["rest"]
        if not engine:
            before.add(pid)
            if call == "execve" and RUNNER in rest and rest.startswith('"') and "bwrap" not in rest.split(",")[0]:
                engine = pid
                before.discard(pid)
        elif pid not in before:
            yield call, rest


def _is_violation(call: str, rest: str, scratch: str) -> bool:
    if call in _TALK or call in ("execve", "execveat", "fork", "vfork"):
        return True
    if call in ("clone", "clone3"):
        return "CLONE_THREAD" not in rest
    if call in _CHANGES or (call in _OPENS and _WRITING.search(rest)):
        return not all(_allowed(path, scratch) for path in _paths(rest, scratch))
    return False


def _paths(rest: str, scratch: str) -> list[str]:
    found = _PATH.finditer(rest)
    return [os.path.normpath(os.path.join(one["at"] or scratch, one["path"])) for one in found]


def _allowed(path: str, scratch: str) -> bool:
    """The scratch is what the engine takes for its home: hidden files there are a library's own notes, and not ours."""
    if path.startswith(f"{scratch}/."):
        return False
    return path == scratch or path.startswith((scratch + "/", *_HARMLESS))
