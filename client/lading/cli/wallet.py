"""`lading wallet`: a key, a deposit, and capped, expiring sessions for coordinators."""

import time
from typing import Annotated

import httpx
from cyclopts import App, Parameter

from lading.cli import context
from lading.cli.output import emit, out
from lading.errors import GatewayError
from lading.settings import Settings
from lading_contracts.deployment import Contracts
from lading_protocol.ids import address, from_hex, to_hex
from lading_protocol.keys import PrivateKey
from lading_protocol.pricing import format_amount, parse_amount

app = App(name="wallet", help="Keys, deposits and spending sessions.")
Json = Annotated[bool, Parameter(name="--json", negative="", help="Machine-readable output.")]
Home = Annotated[str | None, Parameter(help="Folder of key, deployment record and purse (default ~/.lading).")]
Record = Annotated[str | None, Parameter(help="The deployment record of the network (default in the home folder).")]
ChainUrl = Annotated[str | None, Parameter(help="The chain's JSON-RPC address.")]
Key = Annotated[str | None, Parameter(help="The key file.")]


@app.command
async def new(*, home: Home = None, key: Key = None, as_json: Json = False) -> int:
    """Make a key. It is written to a file that only you can read; whoever has it has your money."""
    chosen = context.settings(home=home, key=key)
    import secrets

    fresh = PrivateKey(secrets.token_bytes(32))
    context.write_key(chosen.key_path, fresh)
    emit({"address": to_hex(fresh.address), "key_file": str(chosen.key_path)}, as_json)
    return 0


@app.command
async def show(
    *, home: Home = None, key: Key = None, deployment: Record = None, chain_url: ChainUrl = None, as_json: Json = False
) -> int:
    """Show coins in the wallet, the deposit, and money on its way out."""
    chosen = context.settings(home=home, key=key, deployment=deployment, chain_url=chain_url)
    mine = context.load_key(chosen.key_path)
    async with context.contracts(chosen) as (chain, record):
        coins = await chain.coin.balance(mine.address)
        account = await chain.settlement.account(mine.address)
    emit(
        {
            "address": to_hex(mine.address),
            "coins": _money(coins, record.symbol, as_json),
            "free_deposit": _money(account.free, record.symbol, as_json),
            "leaving": _money(account.exit_amount, record.symbol, as_json),
        },
        as_json,
    )
    return 0


@app.command
async def deposit(
    amount: str,
    *,
    home: Home = None,
    key: Key = None,
    deployment: Record = None,
    chain_url: ChainUrl = None,
    as_json: Json = False,
) -> int:
    """Move coins into your deposit, from which vouchers pay.

    Parameters
    ----------
    amount
        In tokens, such as 12.5.
    """
    chosen = context.settings(home=home, key=key, deployment=deployment, chain_url=chain_url)
    mine = context.load_key(chosen.key_path)
    async with context.contracts(chosen) as (chain, record):
        wei = parse_amount(amount, record.decimals)
        await chain.coin.allow(mine, record.settlement, wei)
        await chain.settlement.deposit(mine, wei)
        account = await chain.settlement.account(mine.address)
    emit({"deposited": amount, "free_deposit": _money(account.free, record.symbol, as_json)}, as_json)
    return 0


@app.command
async def withdraw(
    amount: str | None = None,
    *,
    finish: bool = False,
    home: Home = None,
    key: Key = None,
    deployment: Record = None,
    chain_url: ChainUrl = None,
    as_json: Json = False,
) -> int:
    """Ask for free deposit back, and collect it with --finish once the delay is over.

    Parameters
    ----------
    amount
        In tokens, such as 12.5.
    finish
        Collect what was asked for earlier.
    """
    chosen = context.settings(home=home, key=key, deployment=deployment, chain_url=chain_url)
    mine = context.load_key(chosen.key_path)
    async with context.contracts(chosen) as (chain, record):
        if finish:
            await chain.settlement.finish_exit(mine)
        else:
            await chain.settlement.request_exit(mine, parse_amount(amount or "", record.decimals))
        account = await chain.settlement.account(mine.address)
    wait = max(0, int(account.exit_at - time.time())) if account.exit_amount else 0
    emit({"leaving": _money(account.exit_amount, record.symbol, as_json), "seconds_to_wait": wait}, as_json)
    return 0


@app.command
async def session(
    *,
    cap: str,
    hours: float = 24,
    base_url: str | None = None,
    home: Home = None,
    key: Key = None,
    deployment: Record = None,
    chain_url: ChainUrl = None,
    as_json: Json = False,
) -> int:
    """Let a coordinator spend up to a cap from your deposit, until it expires; prints the API key, once.

    Parameters
    ----------
    cap
        The most it may ever spend, in tokens.
    hours
        How long the session lasts.
    base_url
        The coordinator's address.
    """
    chosen = context.settings(home=home, key=key, deployment=deployment, chain_url=chain_url, base_url=base_url)
    mine = context.load_key(chosen.key_path)
    granted = await _ask_session(chosen, mine)
    async with context.contracts(chosen) as (chain, record):
        await authorise(chain, mine, granted, parse_amount(cap, record.decimals), int(time.time() + hours * 3600))
    emit(
        {
            "api_key": granted["api_key"],
            "session": granted["session"],
            "cap": cap,
            "expires": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time.time() + hours * 3600)),
            "base_url": f"{_root(chosen)}/v1",
        },
        as_json,
    )
    if not as_json:
        out.print("[dim]Use it with any OpenAI client: base_url and api_key as above. Revoke: lading wallet revoke.[/]")
    return 0


@app.command
async def revoke(
    session: str,
    *,
    home: Home = None,
    key: Key = None,
    deployment: Record = None,
    chain_url: ChainUrl = None,
    as_json: Json = False,
) -> int:
    """End a session now; what it has promised to hosts stays promised.

    Parameters
    ----------
    session
        The session's 0x address, as `lading wallet session` printed it.
    """
    chosen = context.settings(home=home, key=key, deployment=deployment, chain_url=chain_url)
    mine = context.load_key(chosen.key_path)
    async with context.contracts(chosen) as (chain, _):
        await chain.settlement.revoke(mine, address(session))
    emit({"revoked": session}, as_json)
    return 0


async def authorise(chain: Contracts, payer: PrivateKey, granted: dict[str, str], cap: int, expiry: int) -> None:
    """Put a session that a coordinator granted on chain."""
    consent = from_hex(granted["consent"], 65)
    await chain.settlement.authorize(payer, address(granted["session"]), cap, expiry, consent)


def _root(chosen: Settings) -> str:
    return chosen.base_url.rstrip("/").removesuffix("/v1")


async def _ask_session(chosen: Settings, mine: PrivateKey) -> dict[str, str]:
    try:
        async with httpx.AsyncClient(timeout=20) as http:
            answer = await http.post(f"{_root(chosen)}/lading/v1/sessions", json={"payer": to_hex(mine.address)})
            answer.raise_for_status()
            granted: dict[str, str] = answer.json()
            return granted
    except (httpx.HTTPError, ValueError) as error:
        raise GatewayError(f"The coordinator at {_root(chosen)} grants no session: {error}.") from error


def _money(wei: int, symbol: str, as_json: bool) -> str:
    return str(wei) if as_json else f"{format_amount(wei, 18)} {symbol}"
