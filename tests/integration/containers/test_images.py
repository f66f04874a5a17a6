"""Images that anybody can make again: the same bytes, the id that the packer says, an agent that a trial can run."""

import hashlib
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import uvloop

from lading import publisher
from lading.blobs import BlobStore
from lading_images.build import BUILD, base_layer, hand_over, recipes
from lading_node.engines.archive import check_archive
from lading_node.engines.dock import Dock
from lading_node.means_here import DOCKER, means_here
from lading_node.trial import opened
from lading_protocol.ids import Address
from lading_protocol.messages import CallRequest
from tools import require_image


def digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def test_an_image_is_built_twice_to_the_same_bytes(tmp_path: Path) -> None:
    """From the base on: the packages are unpacked again too."""
    first = require_image("wordcount")
    again = require_image("wordcount", tmp_path)
    assert again.archive != first.archive
    assert again.id == first.id
    assert digest(again.archive) == digest(first.archive)
    assert base_layer(tmp_path).digest == base_layer(BUILD).digest


def test_the_engine_calls_the_image_what_the_packer_calls_it(docker_url: str) -> None:
    built = require_image("wordcount")
    found = check_archive(built.archive, digest(built.archive), "amd64")
    assert built.id in found.ids
    with closing(Dock(docker_url)) as dock:
        assert dock.load(built.archive, frozenset({built.id}), "lading-test:wordcount") == built.id


def test_a_trial_runs_the_agent_of_a_project_in_its_container(
    docker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DOCKER, docker_url)
    hand_over("wordcount", require_image("wordcount"))
    folder = recipes()["wordcount"]
    store = BlobStore(tmp_path / "store")
    project = publisher.load_project(folder)
    agent, _ = publisher.pack(project, folder, Address(bytes(20)), store, publisher.More(vectors=False))

    async def main() -> Any:
        async with opened(store, agent) as trial:
            assert trial.ready.tier in ("C", "G")
            answer = await trial.ask(CallRequest("count", b'{"text": "a b a"}', 1000))
            return json.loads(answer.text)

    assert uvloop.run(main()) == {"words": 3, "distinct": 2, "most": [["a", 2], ["b", 1]]}


def test_a_machine_without_a_container_engine_has_no_means_for_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DOCKER, f"unix://{tmp_path}/nobody")
    assert means_here().docker == ""
