"""All tests in two halves side by side, which take about the same time on two cores.

    python tests/side_by_side.py

Each half is a pytest of its own. The first one's output is shown as it comes, the second one's after it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parent
FIRST = ("integration", "gpu")
SECOND = ("unit", "property", "simulation", "contracts", "hostile", "e2e")
_HELPERS = {"bench", "vectors", "__pycache__"}


def main() -> int:
    """The worse of the two exit codes; 2 when a folder of tests would be left out."""
    folders = {path.name for path in TESTS.iterdir() if path.is_dir()} - _HELPERS
    if left_out := folders ^ {*FIRST, *SECOND}:
        print(f"Not in a half of tests/side_by_side.py, or not there: {', '.join(sorted(left_out))}.", file=sys.stderr)
        return 2
    with tempfile.TemporaryFile() as later:
        second = subprocess.Popen(_pytest(SECOND), stdout=later, stderr=subprocess.STDOUT)
        try:
            first = subprocess.run(_pytest(FIRST), check=False).returncode
            code = second.wait()
        except BaseException:
            second.terminate()
            second.wait()
            raise
        later.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(later.read())
        sys.stdout.flush()
    return max(first, code)


def _pytest(folders: tuple[str, ...]) -> list[str]:
    # Not `python -m pytest`: that makes the folder docker/ of the project look like the package of this name.
    return [str(Path(sys.executable).parent / "pytest"), *(str(TESTS / name) for name in folders)]


if __name__ == "__main__":
    sys.exit(main())
