"""`lading node`: put this machine to work. Plain functions do the work; the commands below them only print."""

import asyncio
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from cyclopts import App

from lading.cli.context import typed_address
from lading.cli.flags import Json, Switch
from lading.cli.output import UNHEALTHY, emit, emit_rows, out, plain, report
from lading_contracts import deployment as deployments
from lading_contracts.deployment import Contracts
from lading_contracts.rpc import open_chain
from lading_node import keyfile, store
from lading_node import settings as settings_
from lading_node.cli_flags import Data, Docker, OnChain, Operator, Serving, StatusPort
from lading_node.node import Node
from lading_node.settings import NodeSettings
from lading_node.status import shown, turned_away_words

if TYPE_CHECKING:
    from lading_node.engines.probe import Probe
from lading_protocol.errors import LadingError
from lading_protocol.ids import ZERO_ADDRESS, address, to_hex
from lading_protocol.pricing import format_amount, parse_amount
from lading_protocol.receipts import StakeConsent

app = App(name="node", help="Put this machine to work.")
app.command("lading_node.cli_machine:devices", name="devices", help="What this machine can compute on.")
app.command("lading_node.cli_doctor:doctor", name="doctor", help="Which ways lead to this machine.")
app.command("lading_node.cli_why:why", name="why", help="Why this node gets work, or does not.")
app.command("lading_node.cli_machine:bench", name="bench", help="Measure this machine, and keep the score.")


# What the commands do


def up(settings: NodeSettings, started: Any = lambda node, port: None) -> None:
    """Serve until SIGTERM. Raises LadingErrors for everything that keeps the node from starting."""
    from lading_node.main import run_node

    try:
        import uvloop
    except ImportError:  # not on every platform
        asyncio.run(run_node(settings, started))
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_node(settings, started))


def init(settings: NodeSettings) -> dict[str, str]:
    """Make the data folder and the operator key, if they are not there."""
    key, fresh = keyfile.load_or_make(settings.key_path)
    return {"operator": to_hex(key.address), "key": str(settings.key_path), "made": "new" if fresh else "was there"}


async def stake(settings: NodeSettings, amount: str, owner: Path | None = None) -> dict[str, str]:
    """Stake `amount` coins for this operator from `owner`'s account (a key file), or from its own."""
    async with _Chain(settings) as (contracts, key):
        record = contracts.deployment
        wei = parse_amount(amount, record.decimals)
        payer = keyfile.load_key(owner.expanduser()) if owner is not None else key
        consent = b""
        if payer.address != key.address and await contracts.staking.operator(key.address) is None:
            consent = StakeConsent(payer.address).sign(record.staking_domain, key).signature
        await contracts.coin.allow(payer, record.staking, wei)
        await contracts.staking.stake(payer, key.address, wei, consent)
        now = await contracts.staking.operator(key.address)
        staked = now.stake if now is not None else 0
        return {
            "operator": to_hex(key.address),
            "owner": to_hex(payer.address),
            "stake": f"{format_amount(staked, record.decimals)} {record.symbol}",
            "stake_wei": str(staked),
        }


def consent(settings: NodeSettings, owner: str) -> dict[str, str]:
    """This operator's signature that `owner` (an address) owns its stake. Asks no chain. Raises BadSettings."""
    record = deployments.load(settings.deployment_path)
    key = keyfile.load_key(settings.key_path)
    signed = StakeConsent(typed_address(owner, "owner")).sign(record.staking_domain, key)
    return {"operator": to_hex(key.address), "owner": owner, "consent": to_hex(signed.signature)}


async def earnings(settings: NodeSettings) -> dict[str, str]:
    """What this node earned, has redeemed and may withdraw: its books and the chain's. Wei as strings."""
    rows = store.peek(settings.folder)
    async with _Chain(settings) as (contracts, key):
        record = contracts.deployment
        balance = await contracts.settlement.host_balance(key.address)
        payout = await contracts.settlement.payout_of(key.address)
        earned = sum(max(row.earned, row.signed) for row in rows)
        return {
            "operator": to_hex(key.address),
            "earned_wei": str(earned),
            "signed_wei": str(sum(row.signed for row in rows)),
            "redeemed_wei": str(sum(row.redeemed for row in rows)),
            "withdrawable_wei": str(balance),
            "payout": to_hex(payout if any(payout) else key.address),
            "earned": f"{format_amount(earned, record.decimals, 6)} {record.symbol}",
            "withdrawable": f"{format_amount(balance, record.decimals, 6)} {record.symbol}",
        }


async def withdraw(settings: NodeSettings, payout: str = "") -> dict[str, str]:
    """Move what was redeemed to the payout address; `payout` sets that address first (once; then only it may)."""
    async with _Chain(settings) as (contracts, key):
        settlement = contracts.settlement
        if payout:
            await settlement.set_payout(key, key.address, address(payout))
        balance = await settlement.host_balance(key.address)
        if balance:
            await settlement.withdraw(key, key.address)
        to = await settlement.payout_of(key.address)
        return {"withdrawn_wei": str(balance), "to": to_hex(to if to != ZERO_ADDRESS else key.address)}


async def page(settings: NodeSettings, path: str = "/status") -> dict[str, Any]:
    """A page of the running daemon, by default its own status record; empty when there is no daemon."""
    import httpx

    try:
        async with httpx.AsyncClient(timeout=5.0) as client:
            answer = await client.get(f"http://127.0.0.1:{settings.http}{path}")
            tree: dict[str, Any] = answer.json()
            return tree
    except (httpx.HTTPError, ValueError):
        return {}


def nobody(as_json: bool) -> int:
    """Says that no node runs here; returns the exit code."""
    hint = "Start one: lading node up --agent DIGEST. If it has another port: --http PORT."
    what = LadingError("No node answers on its status port.", code="net_no_node", hint=hint)
    return report(what, as_json, UNHEALTHY)


async def probe(settings: NodeSettings) -> "tuple[Probe, ...]":
    """Test the tiers of isolation on this machine, as a node does when it starts. Makes the data folder."""
    from lading_node.engines.probe import probe_machine

    scratch = settings.folder / "engines"
    for folder in (settings.folder, scratch):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return await probe_machine(scratch, (settings.folder,), settings.docker)


class _Chain:
    """The contracts of the settings' network and the operator's key, for the length of a command."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings

    async def __aenter__(self) -> tuple[Contracts, Any]:
        record = deployments.load(self._settings.deployment_path)
        key = keyfile.load_key(self._settings.key_path)
        self._chain = open_chain(self._settings.chain_url, record.chain_id)
        return Contracts(self._chain, record), key

    async def __aexit__(self, *error: object) -> None:
        await self._chain.close()


# The commands


@app.command(name="up")
def up_command(*, serving: Serving = Serving(), settings: Path | None = None, verbose: Switch = False) -> int:
    """Serve agents until stopped (Ctrl-C or SIGTERM lets running jobs end first).

    Parameters
    ----------
    settings
        A settings file instead of ~/.lading/settings.toml.
    verbose
        Log details too.
    """
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for noisy in ("asyncio", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)

    def started(node: Node, port: int) -> None:
        facts = {
            "operator": to_hex(node.address),
            "endpoints": list(node.endpoints),
            "status": f"http://127.0.0.1:{port}/status" if port else "",
        }
        emit(facts, serving.as_json)
        sys.stdout.flush()  # whoever started us through a pipe waits for this line

    up(serving.settings(settings), started)
    return 0


@app.command(name="init")
def init_command(*, who: Operator = Operator()) -> int:
    """Make the data folder and the operator key."""
    emit(init(who.settings()), who.as_json)
    return 0


@app.command(name="stake")
async def stake_command(amount: str, /, *, owner: Path | None = None, who: OnChain = OnChain()) -> int:
    """Stake coins for this operator, so that payers trust its work.

    Parameters
    ----------
    amount
        In coins, such as 1000.
    owner
        Key file of the cold account that pays and will own the stake; the operator's own when left out.
    """
    emit(await stake(who.settings(), amount, owner), who.as_json)
    return 0


@app.command(name="consent")
def consent_command(owner: str, /, *, who: OnChain = OnChain()) -> int:
    """Agree that an account on another machine owns this operator's stake; prints what it gives to `lading stake add`.

    Parameters
    ----------
    owner
        The cold account's 0x address.
    """
    emit(consent(who.settings(), owner), who.as_json)
    return 0


@app.command(name="earnings")
async def earnings_command(*, who: OnChain = OnChain()) -> int:
    """What this node has earned, and what it may withdraw."""
    emit(await earnings(who.settings()), who.as_json)
    return 0


@app.command(name="withdraw")
async def withdraw_command(*, payout: str | None = None, who: OnChain = OnChain()) -> int:
    """Move redeemed earnings to the payout address.

    Parameters
    ----------
    payout
        Set this payout address first; afterwards only it can change itself.
    """
    emit(await withdraw(who.settings(), payout or ""), who.as_json)
    return 0


@app.command(name="status")
async def status_command(*, http: StatusPort = None, as_json: Json = False) -> int:
    """How the running node is doing, and why it is not earning."""
    found = await page(settings_.read({"http": http}))
    if not found:
        return nobody(as_json)
    if as_json:
        emit(found, as_json)
    else:
        emit(_earned(found), as_json)
        crowd = turned_away_words(found.get("turned_away", {}))
        for reason in (*found["why_not_earning"], *found["notices"], *([crowd] if crowd else [])):
            out.print(f"- {plain(reason)}", markup=False, soft_wrap=True)
    return 0 if found["ready"] else UNHEALTHY


def _earned(found: dict[str, Any]) -> dict[str, str]:
    """Of the status page, what an operator wants to see first."""
    sums = found["earnings"] | {"fees": found.get("audit_fees_wei", "0")}
    names = {
        "earned": "earned",
        "for audits since it started": "fees",
        "signed for": "signed",
        "redeemed": "redeemed",
        "not redeemed yet": "unredeemed",
        "not signed for yet": "unpaid",
    }
    money = {name: shown(sums[key], found.get("coin")) for name, key in names.items()}
    return {"operator": found["operator"], "ready": "yes" if found["ready"] else "no"} | money


@app.command(name="probe")
async def probe_command(*, data: Data = None, docker: Docker = None, as_json: Json = False) -> int:
    """Test how well this machine isolates agents: the tiers that pass are the ones that offers name.

    Without a container engine the tiers C and G are not tested.
    """
    found = await probe(settings_.read({"data": data, "docker": docker}))
    if as_json:
        rows = [msgspec.to_builtins(one) for one in found]
    else:
        rows = [
            {
                "tier": one.tier,
                "passed": "yes" if one.passed else "no",
                "denied": f"{len(one.held)} attempts" if one.held else "",
                "limits": ", ".join(one.limits),
                "what failed, and why": "; ".join(one.failed),
                "took": f"{one.took_ms} ms",
            }
            for one in found
        ]
    emit_rows(rows, as_json, "No tier of isolation can be tested on this machine.")
    return 0 if any(one.passed for one in found) else UNHEALTHY
