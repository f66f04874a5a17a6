"""`lading wallet`: a key, a deposit, capped and expiring sessions for coordinators, and channels to hosts."""

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import httpx
import msgspec
from cyclopts import App, Parameter

from lading import keyfile
from lading.cli import context, history
from lading.cli.flags import Asking, BaseUrl, Home, Json, Key, Signing, Switch
from lading.cli.intent import Intent
from lading.cli.output import emit, emit_rows, out
from lading.errors import BadSettings, GatewayError
from lading.routes.passage import refused, root_of, unreachable
from lading.settings import Settings
from lading_contracts.deployment import Contracts
from lading_protocol.ids import Address, address, from_hex, short, to_hex
from lading_protocol.keys import PrivateKey
from lading_protocol.pricing import format_amount

app = App(name="wallet", help="Keys, deposits and spending sessions.")


@app.command
async def new(*, home: Home = None, key: Key = None, as_json: Json = False) -> int:
    """Make a key. It is written to a file that only you can read; whoever has it has your money.

    When the variable LADING_PASSWORD is set, the file is encrypted with that password.
    """
    return _keep(PrivateKey(secrets.token_bytes(32)), home, key, as_json)


@app.command(name="import")
async def import_(
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    home: Home = None,
    key: Key = None,
    as_json: Json = False,
) -> int:
    """Take over a key from a Keystore V3 file or from 64 hexadecimal digits.

    LADING_PASSWORD opens an encrypted file and encrypts the copy. No key goes on the command line, where others see it.

    Parameters
    ----------
    source
        The file to read, or - for standard input.
    """
    if source != "-":
        return _keep(keyfile.load_key(Path(source).expanduser()), home, key, as_json)
    return _keep(PrivateKey.from_hex(sys.stdin.read()), home, key, as_json)


@app.command
async def balance(*, how: Asking = Asking()) -> int:
    """Show coins in the wallet, the deposit, and money on its way out."""
    async with context.desk(how) as desk:
        mine = desk.me.address
        coins, account = await asyncio.gather(desk.chain.coin.balance(mine), desk.chain.settlement.account(mine))
        gas = await desk.chain.chain.balance(mine)
        emit(
            {
                "address": to_hex(mine),
                "coins": desk.money(coins, how.as_json),
                "free_deposit": desk.money(account.free, how.as_json),
                "leaving": desk.money(account.exit_amount, how.as_json),
                "collectable_at": context.moment(account.exit_at, how.as_json),
                "gas": str(gas) if how.as_json else f"{format_amount(gas, 18)} of the chain's own currency",
            },
            how.as_json,
        )
    return 0


@app.command
async def deposit(
    amount: str, /, *, payer: Annotated[str | None, Parameter(name="--for")] = None, how: Signing = Signing()
) -> int:
    """Move coins into your deposit, from which vouchers pay.

    Parameters
    ----------
    amount
        In coins, such as 12.5.
    payer
        Somebody else's deposit, by its 0x address; only that address can use or withdraw it.
    """
    async with context.desk(how) as desk:
        wei, whose = desk.wei(amount), desk.me.address
        if payer is not None:
            whose = context.typed_address(payer, "payer")
        intent = Intent(desk.chain, desk.me)
        await intent.will_allow(desk.record.settlement, wei)
        words = f"Move {desk.money(wei)} from your wallet into the deposit of {to_hex(whose)}."
        intent.will(words, lambda c: c.settlement.deposit_for(desk.me, whose, wei))
        if not await intent.carry_out(how):
            return 0
        account = await desk.chain.settlement.account(whose)
        emit(
            {"deposited": desk.money(wei, how.as_json), "free_deposit": desk.money(account.free, how.as_json)},
            how.as_json,
        )
    return 0


@app.command
async def withdraw(amount: str | None = None, /, *, finish: Switch = False, how: Signing = Signing()) -> int:
    """Ask for free deposit back, and collect it with --finish once the delay is over.

    Parameters
    ----------
    amount
        In coins, such as 12.5; 0 calls an earlier request off.
    finish
        Collect what was asked for earlier.
    """
    if (amount is None) != finish:
        raise BadSettings(
            "Say how much to ask back, or --finish to collect.", hint="For example: lading wallet withdraw 12.5"
        )
    async with context.desk(how) as desk:
        settlement = desk.chain.settlement
        intent = Intent(desk.chain, desk.me)
        if finish:
            asked = (await settlement.account(desk.me.address)).exit_amount
            words = f"Collect {desk.money(asked)}, or what is left of it, from your deposit into your wallet."
            intent.will(words, lambda c: c.settlement.finish_exit(desk.me))
        else:
            wei = desk.wei(amount or "0")
            words = f"Ask for {desk.money(wei)} of your free deposit back; it may leave after the exit delay."
            intent.will(
                words if wei else "Call off your withdrawal.", lambda c: c.settlement.request_exit(desk.me, wei)
            )
        if not await intent.carry_out(how):
            return 0
        account = await settlement.account(desk.me.address)
        wait = max(0, int(account.exit_at - time.time())) if account.exit_amount else 0
        emit({"leaving": desk.money(account.exit_amount, how.as_json), "seconds_to_wait": wait}, how.as_json)
    return 0


@app.command
async def session(*, cap: str, hours: float = 24, base_url: BaseUrl = None, how: Signing = Signing()) -> int:
    """Let a coordinator spend up to a cap from your deposit, until it expires; prints the API key, once.

    Parameters
    ----------
    cap
        The most it may ever spend, in coins.
    hours
        How long the session lasts.
    """
    async with context.desk(how, base_url=base_url) as desk:
        if not 0 < hours <= 24 * 3650:
            raise BadSettings(f"A session cannot last {hours:g} hours.", hint="Give --hours between 0 and ten years.")
        expiry, wei = int(time.time() + hours * 3600), desk.wei(cap)
        granted = await _ask_session(desk.settings, desk.me.address)
        intent = Intent(desk.chain, desk.me)
        words = (
            f"Let session key {granted['session']} lock up to {desk.money(wei)} of your deposit for hosts, "
            f"until {context.moment(expiry)}."
        )
        intent.will(words, lambda c: authorise(c, desk.me, granted, wei, expiry))
        if not await intent.carry_out(how):
            return 0
        shown = {
            "api_key": granted["api_key"],
            "session": granted["session"],
            "cap": cap,
            "expires": expiry if how.as_json else context.moment(expiry),
            "base_url": f"{root_of(desk.settings.base_url)}/v1",
        }
        emit(shown, how.as_json)
    if not how.as_json:
        out.print("[dim]Use it with any OpenAI client: base_url and api_key as above. Revoke: lading wallet revoke.[/]")
    return 0


@app.command
async def sessions(*, how: Asking = Asking()) -> int:
    """List the session keys that may spend, or could, from your deposit."""
    async with context.desk(how) as desk:
        rows = []
        for key in (await history.read(desk.chain, desk.me.address)).sessions:
            found = await desk.chain.settlement.session(key)
            if found is None:
                continue
            row = {
                "session": to_hex(key),
                "cap": desk.money(found.cap, how.as_json),
                "locked": desk.money(found.locked, how.as_json),
                "expires": context.moment(found.expiry, how.as_json) or "revoked",
                "usable": found.expiry > time.time() and found.locked < found.cap,
            }
            rows.append(row if how.as_json else row | {"usable": "yes" if row["usable"] else "no"})
        emit_rows(rows, how.as_json, "You have authorized no session key.")
    return 0


@app.command
async def revoke(session: str, /, *, how: Signing = Signing()) -> int:
    """End a session now; what it has promised to hosts stays promised.

    Parameters
    ----------
    session
        The session's 0x address, as `lading wallet session` printed it.
    """
    async with context.desk(how) as desk:
        which = context.typed_address(session, "session")
        intent = Intent(desk.chain, desk.me)
        words = f"End session key {session}: it locks nothing more; what it locked stays redeemable by its vouchers."
        intent.will(words, lambda c: c.settlement.revoke(desk.me, which))
        if await intent.carry_out(how):
            emit({"revoked": session}, how.as_json)
    return 0


@app.command
async def channels(*, how: Asking = Asking()) -> int:
    """List the channels in which your money waits for hosts."""
    async with context.desk(how) as desk:
        rows = []
        for key in (await history.read(desk.chain, desk.me.address)).channels:
            found = await desk.chain.settlement.channel(key)
            if found.dead:
                continue
            row = {
                "channel": to_hex(key.id),
                "host": to_hex(key.host),
                "terms": to_hex(key.terms) if how.as_json else short(key.terms),
                "epoch": key.epoch,
                "locked": desk.money(found.locked, how.as_json),
                "redeemed": desk.money(found.redeemed, how.as_json),
                "closes": context.moment(found.closes_at, how.as_json) or "open",
            }
            rows.append(row)
        emit_rows(rows, how.as_json, "None of your money is locked for a host.")
    return 0


@app.command
async def close(channel: str, /, *, how: Signing = Signing()) -> int:
    """Close a channel: the first call announces it, one after the delay brings the rest back into your deposit.

    Parameters
    ----------
    channel
        Its 0x id, as `lading wallet channels` printed it.
    """
    async with context.desk(how) as desk:
        wanted = [c for c in (await history.read(desk.chain, desk.me.address)).channels if to_hex(c.id) == channel]
        if not wanted:
            raise BadSettings(f"You have no channel {channel}.", hint="List them: lading wallet channels.")
        (key,) = wanted
        found = await desk.chain.settlement.channel(key)
        intent = Intent(desk.chain, desk.me)
        if found.closes_at:
            words = f"Close the channel to host {to_hex(key.host)} and take back what is not redeemed."
            intent.will(words, lambda c: c.settlement.finish_close(desk.me, key))
        else:
            words = (
                f"Announce the close of the channel to host {to_hex(key.host)}; it may redeem until the delay is over."
            )
            intent.will(words, lambda c: c.settlement.start_close(desk.me, key))
        if not await intent.carry_out(how):
            return 0
        after = await desk.chain.settlement.channel(key)
        state = "closed" if after.dead else "closing"
        emit({"channel": channel, "state": state, "closes": context.moment(after.closes_at, how.as_json)}, how.as_json)
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


def _keep(fresh: PrivateKey, home: str | None, key: str | None, as_json: bool) -> int:
    chosen = context.settings(home=home, key=key)
    keyfile.write_key(chosen.key_path, fresh, os.environ.get(keyfile.PASSWORD, ""))
    emit({"address": to_hex(fresh.address), "key_file": str(chosen.key_path)}, as_json)
    return 0
