"""Goes into the compiled folder, where the first import of its modules runs it: machine code must never stand in for a
source that was edited since. Where the sources are gone, as on another machine, there is nothing to compare."""

import hashlib
import json
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent.parent


def _check() -> None:
    told = json.loads((_FOLDER / "compiled.json").read_text())
    for name, digest in told["digests"].items():
        try:
            now = hashlib.sha256(Path(told["root"], name).read_bytes()).hexdigest()
        except FileNotFoundError:
            continue
        if now != digest:
            why = f"{name} was edited after it was compiled"
            raise ImportError(f"{why}. Run `make compiled`, or take {_FOLDER} off Python's path.")


_check()
