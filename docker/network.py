"""The network of compose.yaml: `python docker/network.py up | ask QUESTION | down`. The engine is DOCKER_HOST's, or the
system's own."""

import os
import shutil
import subprocess
import sys

from lading_images.base import BuildError
from lading_images.build import DOCKER, build

IMAGES = ("coordinator", "node")


def compose(*words: str) -> int:
    """Either of the two ways in which Compose comes."""
    program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    return subprocess.run(
        [*program, "--project-name", "lading", "--file", str(DOCKER / "compose.yaml"), *words],
        env=os.environ | {"COMPOSE_INTERACTIVE_NO_CLI": "1"},
        check=False,
    ).returncode


def load() -> None:
    """The archives name their images as compose.yaml does."""
    for name in IMAGES:
        built = build(name)
        subprocess.run(["docker", "load", "--quiet", "--input", str(built.archive)], check=True)


def main() -> int:
    match sys.argv[1:]:
        case ["up"]:
            try:
                load()
            except (BuildError, subprocess.CalledProcessError) as error:
                sys.exit(f"error: {error}")
            return compose("up", "--detach")
        case ["ask", question]:
            return compose("run", "--rm", "-T", "--no-deps", "open", "ask", question)
        case ["down"]:
            return compose("down", "--volumes", "--remove-orphans")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main())
