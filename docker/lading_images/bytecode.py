"""Byte code ahead of time: an image is read-only, so what is not compiled in it is compiled anew at every start.

The files say that they hold for their sources whatever these sources' times are, which an image does not keep.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from lading_images.pack import Entry

# One worker, in order of name: what is shared between constants, and so the bytes, depends on what came before.
_COMPILE = ("-I", "-m", "compileall", "-qq", "-j", "1", "--invalidation-mode", "unchecked-hash", "-p", "/", "-s")


def compiled(entries: Iterable[Entry], work: Path) -> Iterator[Entry]:
    """The byte code of all modules among the entries, below `work` for a while. A source that does not compile has
    none, and says so where it is imported."""
    with tempfile.TemporaryDirectory(dir=work) as name:
        root = Path(name)
        for entry in entries:
            if entry.path.endswith(".py") and entry.data is not None:
                target = root / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(entry.data if isinstance(entry.data, bytes) else entry.data.read_bytes())
        subprocess.run([sys.executable, *_COMPILE, name, name], capture_output=True, check=False)
        for path in sorted(root.rglob("*.pyc")):
            yield Entry(str(path.relative_to(root)), path.read_bytes())
