"""The self-test of tiers C and G, in a real container engine: what an enemy tries is denied, and a hole is named."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading_node.engines import probe_container as tested
from lading_node.engines.attempts import ATTEMPTS
from lading_node.engines.dock import Dock
from lading_node.engines.port import Tier
from lading_node.engines.probe import Probe
from lading_node.engines.probe_image import probe_image
from tools import missing

NAMES = {one.__name__ for one in ATTEMPTS}


def probed(url: str, tier: Tier, folder: Path, **more: float) -> Probe:
    return asyncio.run(tested.probe_container(url, tier, folder, **more))


@pytest.fixture(autouse=True)
def nothing_left(docker_url: str) -> Iterator[None]:
    before = set(Path.home().glob(".lading-probe-*"))  # of probes that others run, or left
    yield
    names = [name for one in Dock(docker_url)._api.containers(all=True) for name in one["Names"]]
    assert not [name for name in names if "lading-probe" in name]
    assert set(Path.home().glob(".lading-probe-*")) <= before


def test_a_hardened_container_denies_everything(docker_url: str, tmp_path: Path) -> None:
    found = probed(docker_url, "C", tmp_path)
    assert found.failed == ()
    assert found.passed
    assert set(found.held) == NAMES


def test_a_container_on_gvisor_denies_everything_that_is_this_machine_s(docker_url: str, tmp_path: Path) -> None:
    if "runsc" not in Dock(docker_url).about().get("Runtimes", {}):
        missing("the container engine has no runtime runsc")
    found = probed(docker_url, "G", tmp_path)
    assert found.failed == ()
    assert found.passed
    assert NAMES - set(found.held) <= tested._OWN_KERNEL["G"]


HOLES = {
    "the engine's own profile": ({"security_opt": ["no-new-privileges:true", "seccomp=unconfined"]}, "io uring"),
    "room for a thousand processes": ({"pids_limit": 4096}, "threads"),
    "a large scratch": ({"tmpfs": {"/tmp": "rw,size=512m,mode=1777"}}, "disk"),
}


@pytest.mark.parametrize("hole", HOLES)
def test_a_hole_is_named(docker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hole: str) -> None:
    """A container with one wall taken out: the self-test finds it, and the tier has not passed."""
    changes, named = HOLES[hole]
    real = Dock._host

    def holed(self: Dock, plan: object) -> dict[str, object]:
        kept = self._api.create_host_config(**changes, mem_limit=tested.MEMORY, memswap_limit=tested.MEMORY)
        return {**real(self, plan), **{key: value for key, value in kept.items() if value}}  # type: ignore[arg-type]

    monkeypatch.setattr(Dock, "_host", holed)
    found = probed(docker_url, "C", tmp_path)
    assert not found.passed
    assert any(words.startswith(named) for words in found.failed), found.failed


def test_without_an_engine_the_tier_has_not_passed(docker_url: str, tmp_path: Path) -> None:
    found = probed("unix:///nowhere/docker.sock", "C", tmp_path)
    assert not found.passed
    assert "containers do not run here" in found.failed[0]
    late = probed(docker_url, "C", tmp_path, deadline=0.2)
    assert not late.passed


def test_the_image_is_made_the_same_twice() -> None:
    first = probe_image()
    probe_image.cache_clear()
    assert probe_image() == first
