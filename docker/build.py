"""Builds images into build/images: `python docker/build.py NAME...`, all of them without a name.

An agent's image also appears in the agent's folder, as image.tar.
"""

import sys

from lading_images.base import BuildError
from lading_images.build import build, hand_over, recipes


def main() -> None:
    for name in sys.argv[1:] or recipes():
        try:
            built = build(name)
        except BuildError as error:
            sys.exit(f"error: {error}")
        place = hand_over(name, built) or built.archive
        print(f"{place}  {built.archive.stat().st_size:,} bytes  {built.id}")


if __name__ == "__main__":
    main()
