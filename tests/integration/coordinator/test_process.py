"""The coordinator as a process: starts without a chain, refuses a second one, says why it cannot listen, stops."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from factories import key, network
from integration.net_direct.raw import call_in_vain
from lading.cli.main import main
from lading_net.direct import DirectSettings, DirectTransport
from lading_net.errors import HandshakeFailed
from lading_net.messages import MessageStream
from lading_net.private import NetworkKey
from lading_protocol.messages import OFFERS, Adverts, WantOffers


class Daemon:
    def __init__(self, folder: Path, **changes: str) -> None:
        folder.mkdir(exist_ok=True)
        record = folder / "deployment.json"
        record.write_bytes(network().encode())
        flags = {
            "home": str(folder / "home"),
            "deployment": str(record),
            "chain_url": "http://127.0.0.1:9",
            "http_port": "0",
            "listen": "/ip4/127.0.0.1/tcp/0",
            "gossip": "/ip4/127.0.0.1/tcp/0",
        }
        command = [sys.executable, "-m", "lading.cli.main", "coordinator", "up", "--json"]
        for name, value in (flags | changes).items():
            command += [f"--{name.replace('_', '-')}", value]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LADING_")}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def started(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate(timeout=20)[1])
        return json.loads(line)

    def ended(self) -> tuple[int, str]:
        said = self.process.communicate(timeout=30)[1]
        return self.process.returncode, said

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()


@pytest.fixture
def daemons() -> Iterator[list[Daemon]]:
    made: list[Daemon] = []
    yield made
    for daemon in made:
        if daemon.process.poll() is None:
            daemon.process.kill()
        daemon.process.communicate(timeout=20)


def test_a_life_without_a_chain(tmp_path: Path, daemons: list[Daemon]) -> None:
    """It starts, answers, keeps keys over a kill, refuses a second daemon on its folder, and ends with code 0."""
    daemons.append(Daemon(tmp_path))
    told = daemons[0].started()
    assert told["endpoints"][0].startswith("/ip4/127.0.0.1/tcp/")
    assert "/p2p/" in told["gossip"]
    assert httpx.get(told["http"] + "/healthz").json() == {"status": "ok"}
    ready = httpx.get(told["http"] + "/readyz")
    assert (ready.status_code, ready.json()["chain"]) == (503, False)
    made = httpx.post(told["http"] + "/lading/v1/sessions", json={"payer": "0x" + "11" * 20}).json()

    daemons.append(Daemon(tmp_path))
    code, said = daemons[1].ended()
    assert code != 0
    assert "folder_busy" in said
    assert "Traceback" not in said

    daemons[0].process.kill()
    daemons[0].ended()
    daemons.append(Daemon(tmp_path))
    again = daemons[2].started()
    assert again["address"] == told["address"]
    headers = {"authorization": f"Bearer {made['api_key']}"}
    seen = httpx.get(again["http"] + "/lading/v1/session", headers=headers).json()
    assert seen["session"] == made["session"]
    files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert {"key", "coordinator.sqlite", "purse.sqlite"} <= {path.name for path in files}
    assert [path.name for path in files if path.stat().st_mode & 0o077] == []
    code, said = daemons[2].stop()
    assert (code, "Traceback" in said) == (0, False), said


def test_a_port_in_use_is_one_clear_line(tmp_path: Path, daemons: list[Daemon]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        daemons.append(Daemon(tmp_path / "a", http_port=port))
        daemons.append(Daemon(tmp_path / "b", listen=f"/ip4/127.0.0.1/tcp/{port}"))
        for daemon, word in zip(daemons, ("port_in_use", "net_port_in_use"), strict=True):
            code, said = daemon.ended()
            assert code != 0
            assert word in said
            assert port in said
            assert "Traceback" not in said


def test_bad_settings_and_a_missing_record(tmp_path: Path, daemons: list[Daemon]) -> None:
    daemons.append(Daemon(tmp_path / "a", audit_rate="7"))
    daemons.append(Daemon(tmp_path / "b", deployment=str(tmp_path / "nowhere.json")))
    for daemon, words in zip(daemons, (("bad_settings", "audit_rate"), ("bad_deployment", "nowhere")), strict=True):
        code, said = daemon.ended()
        assert code != 0
        assert all(word in said for word in words)
        assert "Traceback" not in said


def said_to(endpoint: str, probe: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", int(endpoint.split("/")[4])), timeout=5) as probing:
        probing.sendall(probe)
        try:
            return probing.recv(1000)
        except ConnectionResetError:
            return b""


def test_a_private_coordinator_is_there_for_members_only(tmp_path: Path, daemons: list[Daemon]) -> None:
    path = tmp_path / "swarm.key"
    assert main(["network", "new-key", str(path), "--json"]) == 0
    daemons.append(Daemon(tmp_path / "one", network_key=str(path), log_level="debug"))
    told = daemons[0].started()
    for endpoint in (told["endpoints"][0], told["gossip"]):
        for probe in (b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n", b"\x13/multistream/1.0.0\n\x07/noise\n"):
            assert said_to(endpoint, probe) == b""

    async def offers(network: NetworkKey | None) -> Adverts | None:
        transport = DirectTransport(key("member"), DirectSettings(network=network))
        try:
            link = await transport.dial(told["endpoints"][0])
            asking: MessageStream[Adverts] = MessageStream(await link.open(OFFERS), msgspec.msgpack.Decoder(Adverts))
            asking.send(WantOffers())
            return await asking.recv()
        finally:
            await transport.close()

    assert asyncio.run(offers(NetworkKey.load(path))) == Adverts(())
    with pytest.raises(HandshakeFailed):
        asyncio.run(offers(None))
    code, said = daemons[0].stop()
    assert code == 0
    assert path.read_text().split()[-1] not in said
    daemons.append(Daemon(tmp_path / "two", network_key=str(tmp_path / "none")))
    code, said = daemons[1].ended()
    assert code != 0
    assert "net_bad_network_key" in said
    assert "Traceback" not in said


def test_several_workers_start_answer_and_stop(tmp_path: Path, daemons: list[Daemon]) -> None:
    daemons.append(Daemon(tmp_path, workers="2"))
    told = daemons[0].started()
    assert httpx.get(told["http"] + "/healthz").json() == {"status": "ok"}
    assert httpx.get(told["http"] + "/v1/models").json() == {"object": "list", "data": []}
    asyncio.run(call_in_vain(told["endpoints"][0], 150, "127.8.0.1"))
    counted = httpx.get(told["http"] + "/metrics").text
    (refused,) = (line for line in counted.splitlines() if line.startswith('lading_net_refused_total{kind="machine"}'))
    assert float(refused.split()[1]) > 10
    made = httpx.post(told["http"] + "/lading/v1/sessions", json={"payer": "0x" + "11" * 20}).json()
    headers = {"authorization": f"Bearer {made['api_key']}"}
    asked = httpx.post(told["http"] + "/v1/embeddings", json={"model": "m", "input": "x"}, headers=headers)
    assert asked.json()["error"]["code"] == "chain_unreachable"
    code, said = daemons[0].stop()
    assert (code, "Traceback" in said) == (0, False), said
