"""Makes build/compiled, if it is not there as the sources are now. Ends well where nothing can be compiled, with a word
why: plain Python does all the same. With --tuned it is made for what a gateway does most, as a run of one tells."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from compiling.build import FOLDER, ROOT, BuildFailed, build, fresh, lacking, lacking_to_tune, tune, tuned


def train(folder: Path) -> None:
    """Raises BuildFailed."""
    print("Serving, to learn what is hot (half a minute) …", file=sys.stderr)
    if subprocess.run(
        [sys.executable, "-m", "tests.bench.gateway_training", str(folder)], cwd=ROOT, check=False
    ).returncode:
        raise BuildFailed("the gateway that should tell what is hot did not run, see above")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tuned", action="store_true", help="for what a gateway does most; gcc only, twice the time")
    wanted = parser.parse_args().tuned
    where = FOLDER.relative_to(ROOT)
    if fresh() and (tuned() or not wanted):
        print(f"{where} is as new as the sources.")
        return 0
    if why := lacking_to_tune() if wanted else lacking():
        print(f"Not compiled: {why}. Lading does the same as plain Python, only slower.", file=sys.stderr)
        return 0
    print(f"Compiling ({'some four minutes' if wanted else 'a minute or two'}) …", file=sys.stderr)
    began = time.monotonic()
    try:
        made = tune(train) if wanted else build()
    except BuildFailed as error:
        print(f"Not compiled: {error}. Everything works as plain Python.", file=sys.stderr)
        return 1
    count = sum(path.suffix != ".py" for path in made)
    print(f"{count} files of machine code in {where}, in {time.monotonic() - began:.0f} s. Use: PYTHONPATH={where}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
