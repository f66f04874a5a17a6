"""Makes build/compiled, if it is not there as the sources are now. Ends well where nothing can be compiled, with a word
why: plain Python does all the same."""

import sys
import time

from compiling.build import FOLDER, ROOT, BuildFailed, build, fresh, lacking


def main() -> int:
    where = FOLDER.relative_to(ROOT)
    if fresh():
        print(f"{where} is as new as the sources.")
        return 0
    if why := lacking():
        print(f"Not compiled: {why}. Lading does the same as plain Python, only slower.", file=sys.stderr)
        return 0
    print("Compiling (a minute or two) …", file=sys.stderr)
    began = time.monotonic()
    try:
        made = build()
    except BuildFailed as error:
        print(f"Not compiled: {error}. Everything works as plain Python.", file=sys.stderr)
        return 1
    count = sum(path.suffix != ".py" for path in made)
    print(f"{count} files of machine code in {where}, in {time.monotonic() - began:.0f} s. Use: PYTHONPATH={where}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
