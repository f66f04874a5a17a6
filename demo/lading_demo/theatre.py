"""The running network of the demo: which process is where, and the contracts as anyone sees them."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI

from lading_contracts.commands import Endpoint, chain_faucet
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.embedded.server import faucet_key
from lading_contracts.rpc import RpcSettings, open_chain
from lading_demo.books import Books
from lading_demo.cast import COIN, GAS, Cast, Party
from lading_demo.screen import Screen
from lading_demo.stage import Fallen, Stage
from lading_protocol.ids import to_hex
from lading_protocol.receipts import StakeConsent

CHAIN_ID = 31_415
STAKE = 1_000 * COIN
SURETY = 30 * COIN
PAY = 5 * COIN
NODE_SETTINGS = """\
[node]
data = "{data}"
key = "{key}"
chain_url = "{chain_url}"
deployment = "{deployment}"
listen = ["/ip4/127.0.0.1/tcp/0"]
gossip_listen = "/ip4/127.0.0.1/tcp/{gossip}"
bootstrap = ["{bootstrap}"]
http = 0
price_in = "{price_in}"
price_out = "{price_out}"
pace = 120            # tokens a second and job, so that there is a middle to be killed in
redeem_threshold = "1000000"
chain_poll = 0.4
agents = [{agents}]
"""


class Theatre:
    """Built up by the scenes, in their order."""

    def __init__(self, folder: Path, stage: Stage, screen: Screen, cast: Cast) -> None:
        self.folder = folder
        self.stage = stage
        self.screen = screen
        self.cast = cast
        self.chain_url = ""
        self.http = ""
        self.bootstrap = ""
        self.direct = ""
        self.api_key = ""
        self.agents: dict[str, dict[str, Any]] = {}
        self.parts: list[dict[str, Any]] = []
        self.serving: dict[str, int] = {}
        self.contracts: Contracts
        self.books: Books
        self.openai: AsyncOpenAI
        self.client = httpx.AsyncClient(timeout=30)

    # The chain

    async def raise_chain(self) -> None:
        port = free_port()
        await self.stage.start(
            "chain",
            [
                *("lading_contracts.embedded", "--folder", str(self.folder / "chain"), "--port", str(port)),
                *("--chain-id", str(CHAIN_ID), "--block-time", "0.5", "--seed", "demo", "--with-parent"),
            ],
        )
        self.chain_url = json.loads(await self.first_line("chain"))["url"]
        self.chain = open_chain(self.chain_url, CHAIN_ID, RpcSettings())

    async def deploy(self, parameters: Parameters) -> None:
        record = await deploy(self.chain, faucet_key("demo"), parameters)
        record.save(self.deployment)
        self.contracts = Contracts(self.chain, record)
        self.books = Books(self.contracts)

    @property
    def deployment(self) -> Path:
        return self.folder / "deployment.json"

    async def fund(self, party: Party, coins: int) -> None:
        endpoint = Endpoint(self.chain_url, CHAIN_ID)
        record = self.contracts.deployment
        await chain_faucet(
            endpoint, faucet_key("demo"), party.address, record, gas=GAS, coins=0 if party.cold else coins
        )
        if party.cold:
            await chain_faucet(endpoint, faucet_key("demo"), party.cold.address, record, gas=GAS, coins=coins)

    async def stake(self, host: Party) -> None:
        """The cold owner stakes for the key on the machine, which consents, and lodges the surety of its votes; its
        earnings go to the cold one too."""
        assert host.cold is not None
        staking = self.contracts.staking
        consent = StakeConsent(host.cold.address).sign(self.contracts.deployment.staking_domain, host.key).signature
        await self.contracts.coin.approve(host.cold, self.contracts.deployment.staking, STAKE)
        await staking.stake(host.cold, host.address, STAKE, consent)
        court = self.contracts.court
        await self.contracts.coin.approve(host.cold, court.address, SURETY)
        await court.lodge(host.cold, host.address, SURETY)
        await self.contracts.settlement.set_payout(host.key, host.address, host.cold.address)

    async def pay_auditors(self) -> None:
        """The curator deposits, from which its coordinator pays auditors."""
        settlement, curator = self.contracts.settlement, self.cast.curator
        await self.contracts.coin.approve(curator.key, settlement.address, PAY)
        await settlement.deposit(curator.key, PAY)

    # Programs

    def home(self, party: Party) -> Path:
        folder = self.folder / "".join(c if c.isalnum() else "-" for c in party.name)
        folder.mkdir(parents=True, exist_ok=True)
        key = folder / "key"
        if not key.exists():
            key.touch(0o600)
            key.write_text(party.key.secret.hex())
        return folder

    async def first_line(self, name: str, limit: float = 60) -> str:
        """What a program says first: where it is reached."""
        found = ""

        async def there() -> bool:
            nonlocal found
            self.stage.check()
            for line in self.stage.log(name).read_text(errors="replace").splitlines():
                if line.startswith("{"):
                    found = line
                    return True
            return False

        await self.screen.until(f"{name} starts", there, limit=limit)
        return found

    async def raise_coordinator(self, rate: float) -> None:
        curator = self.cast.curator
        await self.stage.start(
            "coordinator",
            [
                *("lading.cli.main", "coordinator", "up", "--json", "--home", str(self.home(curator))),
                *("--chain-url", self.chain_url, "--deployment", str(self.deployment), "--http-port", "0"),
                *("--listen", "/ip4/127.0.0.1/tcp/0", "--gossip", f"/ip4/127.0.0.1/tcp/{free_port()}"),
                *("--audit-rate", str(rate), "--audit-period", "0.5"),
            ],
        )
        told = json.loads(await self.first_line("coordinator"))
        self.http, self.bootstrap, self.direct = told["http"], told["gossip"], told["endpoints"][0]

    async def publish(self, folder: Path, publisher: Party, *flags: str) -> dict[str, Any]:
        told = await self.stage.call(
            f"publish {folder.name}",
            [
                *("lading.cli.main", "agent", "publish", str(folder), "--json", "--home", str(self.home(publisher))),
                *("--deployment", str(self.deployment), "--chain-url", self.chain_url, "--to", self.direct, *flags),
            ],
        )
        published: dict[str, Any] = json.loads(told)
        return published

    async def lading(self, who: Party, *words: str) -> dict[str, Any]:
        """A command of `who`'s on this chain; what it says."""
        told = await self.stage.call(
            " ".join(words),
            [
                *("lading.cli.main", *words, "--json", "--home", str(self.home(who))),
                *("--deployment", str(self.deployment), "--chain-url", self.chain_url),
            ],
        )
        said: dict[str, Any] = json.loads(told)
        return said

    def served_by(self, host: Party) -> list[str]:
        """Two nodes serve embeddings besides; a chat model is enough for the others."""
        return list(self.agents) if host in self.cast.hosts[:2] else list(self.agents)[:1]

    async def raise_node(
        self, host: Party, price_in: str, price_out: str, names: list[str], model: Path | None = None
    ) -> None:
        """Start a node that serves these agents. With `model` its operator cheats: see lading_demo.cheat."""
        home = self.home(host)
        settings = home / "settings.toml"
        settings.write_text(
            NODE_SETTINGS.format(
                data=home / "node",
                key=home / "key",
                chain_url=self.chain_url,
                deployment=self.deployment,
                gossip=free_port(),
                bootstrap=self.bootstrap,
                price_in=price_in,
                price_out=price_out,
                agents=", ".join(
                    f'{{ digest = "{made["agent"]}", terms = "{made["terms"]}" }}'
                    for made in (self.agents[name] for name in names)
                ),
            )
        )
        self.serving[host.name] = len(names)
        self.stage.log(host.name).unlink(missing_ok=True)
        program = ["lading.cli.main"] if model is None else ["lading_demo.cheat", "--model", str(model)]
        await self.stage.start(host.name, [*program, "node", "up", "--json", "--settings", str(settings)])

    async def get(self, path: str) -> Any:
        try:
            answer = await self.client.get(self.http + path)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise Fallen(
                f"The coordinator does not answer {path}: {error!r}\n{self.stage.tail('coordinator')}"
            ) from error
        return answer.json()

    def note(self, answer: Any) -> dict[str, Any]:
        """Keep what an answer cost and who served it; returns the gateway's account of it."""
        account: dict[str, Any] = (answer.model_extra or {})["lading"]
        self.parts += account["parts"]
        return account

    async def linked(self, host: Party) -> bool:
        """Whether the coordinator would choose this host for all that it was started with."""
        self.stage.check()
        for row in (await self.get("/lading/v1/hosts"))["hosts"]:
            if row["host"] == to_hex(host.address):
                return bool(row["chosen"]) and len(row["agents"]) >= self.serving[host.name]
        return False

    def name_of(self, text: str) -> str:
        return next((host.name for host in self.cast.operators if to_hex(host.address) == text), text)

    async def close(self) -> None:
        await self.client.aclose()
        if hasattr(self, "chain"):
            await self.chain.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def together(*work: Any) -> list[Any]:
    """All at once; the first failure ends the others."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
    return [task.result() for task in tasks]
