"""Trouble while everything runs: the chain goes away, a disk fills up. Work goes on or is refused; nothing is lost."""

import ctypes
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from integration.cli.quay import CHAT, ROOT, STORY, Quay, call
from lading_demo.theatre import CHAIN_ID
from lading_protocol.ids import address, short

MESSAGES: Any = [{"role": "user", "content": STORY}]


@pytest.fixture(scope="module")
def home(quay: Quay) -> Path:
    return quay.consumer("a consumer of worse days", deposit="10")


def ask(quay: Quay, api_key: str, tokens: int = 20) -> Any:
    with quay.openai(api_key) as client:
        return client.chat.completions.create(model=CHAT, messages=MESSAGES, max_tokens=tokens)


def test_the_chain_goes_away_and_comes_back(quay: Quay, home: Path) -> None:
    t = quay.theatre
    api_key = quay.session(home)["api_key"]
    before = ask(quay, api_key)
    shown = call("wallet", "balance", "--home", home, *quay.network, "--json").tree
    quay.run(quay.stage.kill("chain"))
    try:
        answers = [ask(quay, api_key, 10 + n) for n in range(3)]
        assert all(answer.choices[0].message.content for answer in answers)
        away = call("wallet", "balance", "--home", home, *quay.network, "--json")
        assert (away.code, away.error["code"]) == (5, "chain_unreachable")
        assert t.chain_url in away.error["message"]
        assert call("chain", "status", *quay.network).code == 3
        new = call("wallet", "session", "--cap", "1", "--home", home, *quay.network, *quay.through, "--json")
        assert (new.code, new.error["code"]) == (5, "chain_unreachable")
    finally:
        port = str(urlsplit(t.chain_url).port)
        chain = ["lading_contracts.embedded", "--folder", str(t.folder / "chain"), "--port", port]
        quay.run(
            quay.stage.start("chain", [*chain, "--chain-id", str(CHAIN_ID), "--block-time", "1", "--seed", "demo"])
        )
    quay.until(lambda: call("chain", "status", *quay.network).code == 0, "the chain is back")
    assert call("wallet", "balance", "--home", home, *quay.network, "--json").tree["coins"] == shown["coins"]
    spent = sum(int(answer.model_extra["lading"]["cost_wei"]) for answer in (before, *answers))
    assert int(quay.seat(api_key)["spent"]["wei"]) == spent
    assert ask(quay, api_key).choices[0].message.content


@pytest.fixture
def full(quay: Quay) -> Iterator[Any]:
    """Both nodes' disks take no more: a limit on file size, which the kernel enforces for all that they write."""
    running = [quay.stage.running[host.name].pid for host in quay.hosts]

    def limit(size: int) -> None:
        for pid in running:
            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))

    yield limit
    limit(resource.RLIM_INFINITY)


def ask_on(quay: Quay, api_key: str) -> None:
    for _ in range(5):
        ask(quay, api_key)


def pages(quay: Quay) -> list[dict[str, Any]]:
    async def read() -> list[dict[str, Any]]:
        urls = [json.loads(await quay.theatre.first_line(host.name))["status"] for host in quay.hosts]
        return [(await quay.theatre.client.get(url)).json() for url in urls]

    return quay.run(read())


def test_a_full_disk_under_the_nodes_ledgers(quay: Quay, home: Path, full: Any) -> None:
    """What was accepted before is delivered; new work is refused; every voucher is there once there is room again."""
    api_key = quay.session(home)["api_key"]
    ask(quay, api_key)
    full(1)
    with pytest.raises(openai.APIStatusError) as caught:
        ask_on(quay, api_key)
    assert caught.value.code in ("no_host", "job_lost")
    assert "host" in caught.value.message
    assert [why for page in pages(quay) for why in page["why_not_earning"] if "ledger" in why]
    full(resource.RLIM_INFINITY)
    quay.until(lambda: all(page["ready"] for page in pages(quay)), "the nodes write again")
    quay.run(quay.linked())
    assert ask(quay, api_key).choices[0].message.content
    seat = quay.seat(api_key)

    def held() -> int:
        mine = [
            one for page in pages(quay) for one in page["channels"] if one["signer"] == short(address(seat["session"]))
        ]
        return sum(int(one["signed"]) for one in mine)

    quay.until(lambda: held() == int(seat["spent"]["wei"]), "the nodes hold a voucher for every token")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_small_disk_under_a_package_store(quay: Quay, tmp_path: Path) -> None:
    """A real file system of 1 MiB: the package does not fit, the store says so and keeps no half of it."""
    disk = tmp_path / "packages"
    disk.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(disk), b"tmpfs", 0, b"size=1m"):
        pytest.skip(f"no mount here: {os.strerror(ctypes.get_errno())}")
    try:
        call("wallet", "new", "--home", tmp_path)
        flags = ("--home", tmp_path, *quay.network, "--to", quay.theatre.direct, "--json")
        ended = call("agent", "publish", ROOT / "agents/chat", *flags)
        assert (ended.code, ended.error["code"]) == (1, "store_full")
        assert str(disk) in ended.error["message"]
        assert not list(disk.iterdir())
    finally:
        libc.umount2(os.fsencode(disk), 2)
