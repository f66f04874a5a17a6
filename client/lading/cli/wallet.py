"""`lading wallet`: a key, a deposit, and capped, expiring sessions for coordinators."""

import os
import secrets
import time
from collections.abc import Mapping
from typing import Annotated

import httpx
import msgspec
from cyclopts import App, Parameter

from lading.cli import context
from lading.cli.flags import BaseUrl, ChainUrl, Home, Json, Key, Record
from lading.cli.output import emit, out
from lading.errors import BadSettings, GatewayError
from lading.routes.gateway import refused, root_of, unreachable
from lading.settings import Settings
from lading_contracts.deployment import Contracts
from lading_protocol.ids import Address, address, from_hex, to_hex
from lading_protocol.keys import PrivateKey
from lading_protocol.pricing import format_amount, parse_amount

app = App(name="wallet", help="Keys, deposits and spending sessions.")


@app.command
async def new(*, home: Home = None, key: Key = None, as_json: Json = False) -> int:
    """Make a key. It is written to a file that only you can read; whoever has it has your money.

    When the variable LADING_PASSWORD is set, the file is encrypted with that password.
    """
    chosen = context.settings(home=home, key=key)
    fresh = PrivateKey(secrets.token_bytes(32))
    context.write_key(chosen.key_path, fresh, os.environ.get(context.PASSWORD, ""))
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
    /,
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
    /,
    *,
    finish: Annotated[bool, Parameter(negative="", show_default=False)] = False,
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
    if (amount is None) != finish:
        raise BadSettings(
            "Say how much to ask back, or --finish to collect.", hint="For example: lading wallet withdraw 12.5"
        )
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
    base_url: BaseUrl = None,
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
    """
    chosen = context.settings(home=home, key=key, deployment=deployment, chain_url=chain_url, base_url=base_url)
    mine = context.load_key(chosen.key_path)
    if not 0 < hours <= 24 * 3650:
        raise BadSettings(f"A session cannot last {hours:g} hours.", hint="Give --hours between 0 and ten years.")
    expiry = int(time.time() + hours * 3600)
    async with context.contracts(chosen) as (chain, record):
        wei = parse_amount(cap, record.decimals)
        granted = await _ask_session(chosen, mine.address)
        await authorise(chain, mine, granted, wei, expiry)
    shown = {
        "api_key": granted["api_key"],
        "session": granted["session"],
        "cap": cap,
        "expires": expiry if as_json else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(expiry)),
        "base_url": f"{root_of(chosen.base_url)}/v1",
    }
    emit(shown, as_json)
    if not as_json:
        out.print("[dim]Use it with any OpenAI client: base_url and api_key as above. Revoke: lading wallet revoke.[/]")
    return 0


@app.command
async def revoke(
    session: str,
    /,
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
    mine, which = context.load_key(chosen.key_path), context.typed_address(session, "session")
    async with context.contracts(chosen) as (chain, _):
        await chain.settlement.revoke(mine, which)
    emit({"revoked": session}, as_json)
    return 0


async def authorise(chain: Contracts, payer: PrivateKey, granted: Mapping[str, str], cap: int, expiry: int) -> None:
    """Put a session that a coordinator granted on chain. Raises GatewayError when what it granted makes no sense."""
    try:
        session, consent = address(granted["session"]), from_hex(granted["consent"], 65)
    except (KeyError, ValueError) as error:
        raise GatewayError(f"The coordinator granted a session that does not read: {error}.") from None
    await chain.settlement.authorize(payer, session, cap, expiry, consent)


async def _ask_session(chosen: Settings, payer: Address) -> dict[str, str]:
    root = root_of(chosen.base_url)
    try:
        async with httpx.AsyncClient(timeout=20) as http:
            answer = await http.post(f"{root}/lading/v1/sessions", json={"payer": to_hex(payer)})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise unreachable(root, error) from error
    if answer.status_code != 201:
        raise refused(answer)
    try:
        granted = msgspec.json.decode(answer.content, type=dict[str, str])
    except msgspec.MsgspecError as error:
        raise GatewayError(f"What {root} answers is no session: {error}.") from error
    if not {"api_key", "session", "consent"} <= granted.keys():
        raise GatewayError(f"What {root} answers is no session.")
    return granted


def _money(wei: int, symbol: str, as_json: bool) -> str:
    return str(wei) if as_json else f"{format_amount(wei, 18)} {symbol}"
