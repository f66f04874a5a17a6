"""What keeps a program from starting: each, a real process, says so in one line with a code, and harms no other."""

import asyncio
import json
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.cli.quay import CHAT, ROOT, STORY, Outcome, Quay, call, spawn
from lading_contracts.embedded.server import EmbeddedChain, EmbeddedSettings
from lading_demo.stage import environment

ANY = "/ip4/127.0.0.1/tcp/0"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def one_line(ended: Outcome, code: str) -> dict[str, Any]:
    """One JSON line on standard error besides log lines, no traceback, and words that say what to do."""
    error = ended.error
    assert error["code"] == code, ended.err
    assert error["message"].endswith(".")
    assert error["hint"].endswith(".")
    assert "Traceback" not in ended.err
    assert ended.out == ""
    return error


def node(quay: Quay, data: Path, **changes: object) -> Outcome:
    flags: dict[str, object] = {
        "data": data,
        "deployment": quay.theatre.deployment,
        "chain_url": quay.theatre.chain_url,
        "listen": ANY,
        "gossip_listen": "",
        "http": 0,
        "agent": quay.agent,
    }
    return spawn("node", "up", "--json", *as_flags(flags | changes))


def coordinator(quay: Quay, home: Path, **changes: object) -> Outcome:
    flags: dict[str, object] = {
        "home": home,
        "deployment": quay.theatre.deployment,
        "chain_url": quay.theatre.chain_url,
        "listen": ANY,
        "gossip": "",
        "http_port": 0,
    }
    return spawn("coordinator", "up", "--json", *as_flags(flags | changes))


def as_flags(flags: dict[str, object]) -> list[object]:
    return [part for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", value)]


def test_a_port_in_use(quay: Quay, tmp_path: Path, taken: int) -> None:
    where = f"/ip4/127.0.0.1/tcp/{taken}"
    assert str(taken) in one_line(node(quay, tmp_path / "n", http=taken), "port_in_use")["message"]
    assert str(taken) in one_line(node(quay, tmp_path / "n", listen=where), "net_port_in_use")["message"]
    assert str(taken) in one_line(coordinator(quay, tmp_path / "c", http_port=taken), "port_in_use")["message"]
    assert str(taken) in one_line(coordinator(quay, tmp_path / "c", listen=where), "net_port_in_use")["message"]
    chain = spawn("chain", "up", "--json", "--folder", tmp_path / "chain", "--port", taken)
    assert str(taken) in one_line(chain, "port_in_use")["message"]


def test_a_second_daemon_on_the_same_folder(quay: Quay, tmp_path: Path) -> None:
    t = quay.theatre
    again = one_line(node(quay, t.home(quay.hosts[0]) / "node", key=t.home(quay.hosts[0]) / "key"), "folder_busy")
    assert "--data" in again["hint"]
    one_line(coordinator(quay, t.home(t.cast.curator)), "folder_busy")
    chain = spawn("chain", "up", "--json", "--folder", quay.folder / "chain", "--port", 0, "--chain-id", 31_415)
    one_line(chain, "chain_folder_busy")
    quay.run(quay.linked())
    assert call("chain", "status", *quay.network).code == 0


def test_a_chain_that_does_not_answer_at_the_start(quay: Quay, tmp_path: Path) -> None:
    away = "http://127.0.0.1:1"
    error = one_line(node(quay, tmp_path / "n", chain_url=away), "chain_unreachable")
    assert away in error["message"]
    home = quay.consumer("a consumer without a chain", coins=0)
    for command in (("wallet", "balance"), ("wallet", "deposit", "1"), ("wallet", "withdraw", "1")):
        ended = call(*command, "--home", home, "--deployment", quay.theatre.deployment, "--chain-url", away, "--json")
        assert (ended.code, ended.error["code"]) == (5, "chain_unreachable")
    status = call("chain", "status", "--deployment", quay.theatre.deployment, "--chain-url", away, "--json")
    assert (status.code, json.loads(status.out)["reachable"]) == (3, False)


def test_the_wrong_chain(quay: Quay, tmp_path: Path) -> None:
    """Nothing is signed and nothing believed of a chain that is not the deployment record's."""

    async def elsewhere() -> tuple[Outcome, ...]:
        chain = await EmbeddedChain.start(EmbeddedSettings(chain_id=777))
        try:
            return (
                await asyncio.to_thread(node, quay, tmp_path / "n", chain_url=chain.url),
                await asyncio.to_thread(coordinator, quay, tmp_path / "c", chain_url=chain.url),
                await asyncio.to_thread(wallet, chain.url, "balance"),
                await asyncio.to_thread(wallet, chain.url, "deposit", "1"),
            )
        finally:
            await chain.stop()

    def wallet(url: str, *command: str) -> Outcome:
        record = ("--deployment", quay.theatre.deployment, "--chain-url", url)
        return spawn("wallet", *command, "--home", home, *record, "--json")

    home = quay.consumer("a consumer elsewhere", coins=0)
    for ended in quay.run(elsewhere()):
        error = one_line(ended, "wrong_chain")
        assert ended.code == 2
        assert "777" in error["message"]
        assert "31415" in error["message"]


def test_records_keys_and_settings_that_do_not_read(quay: Quay, tmp_path: Path) -> None:
    scrap = tmp_path / "scrap"
    scrap.write_text('{"chain_id": "many"}')
    assert one_line(node(quay, tmp_path / "n", deployment=scrap), "bad_deployment")["message"].startswith(str(scrap))
    one_line(coordinator(quay, tmp_path / "c", deployment=scrap), "bad_deployment")
    scrap.write_text("not a key")
    for ended in (node(quay, tmp_path / "n", key=scrap), coordinator(quay, tmp_path / "c", key=scrap)):
        one_line(ended, "bad_key")
        assert "not a key" not in ended.err
    one_line(node(quay, tmp_path / "n", agent="0x12"), "bad_settings")
    one_line(node(quay, tmp_path / "n", price_in="cheap"), "bad_settings")
    one_line(node(quay, tmp_path / "n", listen="here"), "net_bad_endpoint")
    one_line(coordinator(quay, tmp_path / "c", audit_rate=2), "bad_settings")


def test_a_folder_that_is_a_file(quay: Quay, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for ended in (
        node(quay, file),
        coordinator(quay, file),
        spawn("chain", "up", "--folder", file, "--port", 0, "--json"),
        spawn("wallet", "new", "--home", file, "--json"),
    ):
        assert ended.code in (1, 2)
        assert str(file) in ended.error["message"]
        assert "Traceback" not in ended.err


def test_a_full_disk_while_publishing(quay: Quay, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the package's model does not fit."""
    home = quay.consumer("a publisher without space", coins=0)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    flags = ("--home", home, *quay.network, "--to", quay.theatre.direct, "--json")
    ended = spawn("agent", "publish", ROOT / "agents/chat", *flags, preexec_fn=limit)
    error = one_line(ended, "store_full")
    assert str(home / "packages") in error["message"]
    assert not list((home / "packages").glob("*.part"))
    assert environment()["LADING_SETTINGS"] == "/dev/null"


def test_a_package_whose_digest_does_not_match(quay: Quay, tmp_path: Path) -> None:
    """The coordinator's copy is altered on its disk: a node finds it, says so, serves nothing of it, and stays up."""
    t = quay.theatre
    folder = tmp_path / "variant"
    folder.mkdir()
    text = (ROOT / "agents/chat/agent.toml").read_text().replace(f'name = "{CHAT}"', 'name = "variant"')
    (folder / "agent.toml").write_text(text.replace('source = "', f'source = "{folder}/'))
    (folder / "model").mkdir()
    for file in (ROOT / "agents/chat/model").glob("*.*"):
        (folder / "model" / file.name).write_bytes(file.read_bytes())
    with (folder / "model/tokenizer.json").open("a") as out:
        out.write("\n")
    made = call(
        "agent", "publish", folder, "--home", t.home(t.cast.maker), *quay.network, "--to", t.direct, "--json"
    ).tree
    blobs = t.home(t.cast.curator) / "blobs"
    (changed,) = [blob for blob in blobs.iterdir() if blob.read_bytes().endswith(b"}\n\n") or blob_of(blob, folder)]
    changed.write_bytes(changed.read_bytes()[:-1] + b" ")
    flags = {
        "data": tmp_path / "n",
        "deployment": t.deployment,
        "chain_url": t.chain_url,
        "listen": ANY,
        "gossip_listen": "",
        "http": 0,
        "agent": made["agent"],
        "coordinator": t.direct,
    }

    async def watch() -> tuple[str, list[Path]]:
        await quay.stage.start("wary", ["lading.cli.main", "node", "up", "--json", *map(str, as_flags(flags))])
        page = json.loads(await t.first_line("wary"))["status"]
        found = ""

        async def said() -> bool:
            nonlocal found
            answer = (await t.client.get(page)).json()
            found = " ".join(answer["why_not_earning"])
            return "wrong chunk" in found

        try:
            await t.screen.until("the node finds the altered byte", said)
        finally:
            await quay.stage.stop("wary")
        return found, list((tmp_path / "n/agents").glob("*"))

    said, laid_out = quay.run(watch())
    assert "tokenizer.json" in said
    assert laid_out == []
    assert call("run", CHAT, STORY, "--help").code == 0


def blob_of(blob: Path, folder: Path) -> bool:
    return blob.read_bytes() == (folder / "model/tokenizer.json").read_bytes()
