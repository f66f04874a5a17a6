"""The network of docker/compose.yaml, as far as it can be checked without building its images."""

import ast
import os
import re
import subprocess
from pathlib import Path

from lading_images.build import DOCKER, recipes
from tools import require_program


def test_compose_reads_the_file_and_every_service_has_an_image_and_a_part_to_play() -> None:
    program = require_program("docker-compose")
    command = [program, "--file", str(DOCKER / "compose.yaml"), "config"]
    environment = os.environ | {"LADING_NETWORK": "none"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    images = re.findall(r"image: (\S+)", done.stdout)
    assert len(images) == 6
    assert {image.removeprefix("lading-") for image in images} <= set(recipes())
    assert done.stdout.count("network_mode: service:chain") == 5, "all of it shares one network"
    assert "network_mode: none" in done.stdout
    for path in re.findall(r"- (/\S+):/\S+:ro", done.stdout):
        assert Path(path).exists()
    names = {
        node.name
        for node in ast.walk(ast.parse((DOCKER / "devnet.py").read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert {"prepare", "open_network", "run", "ask"} <= names
