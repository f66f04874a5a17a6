"""The process of a tier's self-test: confines itself as an engine's process does, then tries to get out.

Two lines of JSON on stdin: the bounds, and what to attack. Lines on stdout: what it says holds, then each attempt.
"""

import json
import os
import sys

import msgspec

from lading_node.engines.attempts import attempt_all
from lading_node.engines.confine import Bounds, confine, die_with, take_stdio


def main() -> int:
    parent = int(sys.argv[1])
    die_with(parent)
    reading, writing = take_stdio()
    with os.fdopen(reading, "rb") as lines:
        bounds = msgspec.json.decode(lines.readline(), type=Bounds)
        told = json.loads(lines.readline())

    def say(line: object) -> None:
        os.write(writing, json.dumps(line).encode() + b"\n")

    say({"held": confine(bounds, parent)})
    for line in attempt_all(told):
        say(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
