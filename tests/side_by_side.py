"""All tests, two at a time: one pytest takes groups of them from the front of a list, another from its end.

    python tests/side_by_side.py

So both are done at about the same time, however long each group takes on this machine. The first one's output is shown
as it comes, the second one's after it.
"""

import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

TESTS = Path(__file__).parent
# The front: what has programs, containers or networks of this machine to itself, so never two such at a time.
# The end: what may run beside any of it. Small ones stand where the two meet.
GROUPS = (
    ("integration/containers", "integration/packages", "integration/pool", "integration/ray"),
    ("integration/net_nat", "integration/net_js", "integration/net_others"),
    ("integration/net_conformance", "integration/net_direct", "integration/net_gossip", "integration/net_scale"),
    ("integration/engines", "integration/hardware", "gpu"),
    ("integration/coordinator", "integration/node"),
    ("integration/chain", "integration/cli_chain"),
    ("contracts",),
    ("hostile",),
    ("integration/cli", "integration/bench"),
    ("simulation",),
    ("e2e",),
    ("unit", "property"),
)
_HELPERS = {"bench", "vectors", "integration", "__pycache__"}


def main() -> int:
    """The worst of the exit codes; 2 when a folder of tests would be left out."""
    folders = {path.name for path in TESTS.iterdir() if path.is_dir()} - _HELPERS
    folders |= {f"integration/{path.name}" for path in (TESTS / "integration").iterdir() if path.is_dir()}
    folders -= {"integration/__pycache__"}
    if wrong := folders ^ {each for group in GROUPS for each in group}:
        print(f"Not in a group of tests/side_by_side.py, or not there: {', '.join(sorted(wrong))}.", file=sys.stderr)
        return 2
    return run([[str(TESTS / each) for each in group] for group in GROUPS])


def run(groups: Iterable[list[str]], environment: Mapping[str, str] | None = None) -> int:
    """The worst of the exit codes of a pytest for each group."""
    left = deque(groups)

    def work(take: Callable[[], list[str]], out: IO[bytes] | None) -> int:
        worst = 0
        while True:
            try:
                group = take()
            except IndexError:
                return worst
            # Not `python -m pytest`: that makes the folder docker/ of the project look like the package of this name.
            command = [str(Path(sys.executable).parent / "pytest"), *group]
            done = subprocess.run(command, env=environment, stdout=out, stderr=out and subprocess.STDOUT, check=False)
            worst = max(worst, abs(done.returncode))

    with tempfile.TemporaryFile() as later, ThreadPoolExecutor(2) as both:
        try:
            second = both.submit(work, left.pop, later)
            first = both.submit(work, left.popleft, None)
            codes = first.result(), second.result()
        except BaseException:
            left.clear()  # the two that run were interrupted with us
            raise
        later.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(later.read())
        sys.stdout.flush()
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
