"""What a newcomer waits for: the demo's scenes by its own clock, the whole by ours, and all of it from nothing.

--from-nothing makes a new checkout of what is committed, and runs `make demo` in it: environment, downloads, demo.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import ROOT
from .report import say

_SCENE = re.compile(r"^ *(\d+\.\d) s  (.+)$", re.MULTILINE)
INSTALLED = "<= 60"
FROM_NOTHING = "<= 240"


def timed(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[float, str]:
    """Seconds and output. A run that fails has no time: ends this benchmark with what was said."""
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{done.stdout[-4000:]}\n`{' '.join(command)}` ended with {done.returncode}")
    return seconds, done.stdout


def installed() -> None:
    seconds, said = timed([sys.executable, "-m", "lading_demo"], ROOT, dict(os.environ))
    scenes = _SCENE.findall(said)
    if not scenes:
        sys.exit("the demo did not say how long its scenes took")
    for at, (taken, title) in enumerate(scenes, 1):
        say(f"demo_scene_{at}", float(taken), "s", note=title)
    say("demo_installed", seconds, "s", bar=INSTALLED, note="from the command to the prompt, cleaning up included")


def from_nothing() -> None:
    """pip may not use what it kept of earlier downloads."""
    with tempfile.TemporaryDirectory() as made:
        checkout = Path(made) / "lading"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("LADING_", "MAKE", "VIRTUAL_ENV"))
        }
        environment = kept | {"PIP_NO_CACHE_DIR": "1"}
        command = ["make", "demo", f"PYTHON={sys.base_prefix}/bin/python3"]
        seconds, _ = timed(command, checkout, environment)
        note = "`make demo` in a new checkout: virtual environment, downloads without a cache, the demo"
        say("demo_from_nothing", seconds, "s", bar=FROM_NOTHING, note=note)
        seconds, _ = timed(command, checkout, environment)
        say("demo_again", seconds, "s", bar=INSTALLED, note="`make demo` a second time in that checkout")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the same: a demo has no rounds")
    parser.add_argument("--from-nothing", action="store_true", help="minutes: in a new checkout as well")
    chosen = parser.parse_args()
    installed()
    if chosen.from_nothing:
        from_nothing()


if __name__ == "__main__":
    main()
