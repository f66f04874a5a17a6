"""Runs a command with a container engine at hand: `python docker/engine.py [--keep FOLDER] COMMAND...`.

DOCKER_HOST tells the command where it is. An engine that had to be started is stopped when the command ends; its images
stay in FOLDER, if one is named.
"""

import os
import subprocess
import sys
from pathlib import Path

from lading_images.engine import NoEngine, ensure


def main() -> int:
    arguments = sys.argv[1:]
    folder = None
    if arguments[:1] == ["--keep"]:
        folder, arguments = Path(arguments[1]).resolve(), arguments[2:]
    if not arguments:
        sys.exit((__doc__ or "").strip())
    try:
        with ensure(folder) as url:
            return subprocess.run(arguments, env=os.environ | {"DOCKER_HOST": url}, check=False).returncode
    except NoEngine as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    sys.exit(main())
