"""`lading stake`: what an operator has at stake, and its surety as a juror, from its cold owner's side."""

import time
from typing import Annotated, Any

from cyclopts import App, Parameter

from lading.cli import context, history
from lading.cli.context import Desk
from lading.cli.flags import Asking, Signing
from lading.cli.intent import Intent
from lading.cli.output import emit, emit_rows
from lading.errors import BadSettings
from lading_protocol.ids import Address, Digest, from_hex, to_hex

app = App(name="stake", help="What your operators have at stake.")
Operator = Annotated[str | None, Parameter(help="The operator's 0x address (default your own).")]


@app.command
async def add(
    amount: str, /, *, operator: Operator = None, consent: str | None = None, how: Signing = Signing()
) -> int:
    """Stake coins for an operator. The first time its owner is fixed for ever: you.

    Parameters
    ----------
    amount
        In coins, such as 1000.
    consent
        The first time for another operator than yourself: what `lading node consent` printed there.
    """
    async with context.desk(how) as desk:
        which, wei = _operator(desk, operator), desk.wei(amount)
        signature = _signature(consent)
        known = await desk.chain.staking.operator(which)
        if known is None and which != desk.me.address and not signature:
            raise BadSettings(
                f"Operator {to_hex(which)} has no owner yet and must agree to you.",
                hint=f"On its machine: lading node consent {to_hex(desk.me.address)}. Give its answer as --consent.",
            )
        intent = Intent(desk.chain, desk.me)
        await intent.will_allow(desk.record.staking, wei)
        words = (
            f"Stake {desk.money(wei)} for operator {to_hex(which)}; a committee may slash it if the operator cheats."
        )
        intent.will(words, lambda c: c.staking.stake(desk.me, which, wei, signature))
        if await intent.carry_out(how):
            emit(await _shown(desk, which, how.as_json), how.as_json)
    return 0


@app.command
async def remove(amount: str, /, *, operator: Operator = None, how: Signing = Signing()) -> int:
    """Ask for stake back. It leaves after the cooldown, which starts again for all that is leaving.

    Parameters
    ----------
    amount
        In coins, such as 1000.
    """
    async with context.desk(how) as desk:
        which, wei = _operator(desk, operator), desk.wei(amount)
        intent = Intent(desk.chain, desk.me)
        words = f"Ask {desk.money(wei)} of the stake of {to_hex(which)} back; it stays slashable until it is paid."
        intent.will(words, lambda c: c.staking.request_unstake(desk.me, which, wei))
        if await intent.carry_out(how):
            emit(await _shown(desk, which, how.as_json), how.as_json)
    return 0


@app.command
async def collect(*, operator: Operator = None, how: Signing = Signing()) -> int:
    """Collect stake that was asked back, once its cooldown is over and no dispute is open."""
    async with context.desk(how) as desk:
        which = _operator(desk, operator)
        known = await desk.chain.staking.operator(which)
        leaving = known.unbonding if known is not None else 0
        intent = Intent(desk.chain, desk.me)
        words = f"Pay {desk.money(leaving)} that {to_hex(which)} had at stake to its owner."
        intent.will(words, lambda c: c.staking.finish_unstake(desk.me, which))
        if await intent.carry_out(how):
            emit(await _shown(desk, which, how.as_json), how.as_json)
    return 0


@app.command
async def unjail(*, operator: Operator = None, how: Signing = Signing()) -> int:
    """Put an operator back on the active list after its jail."""
    async with context.desk(how) as desk:
        which = _operator(desk, operator)
        intent = Intent(desk.chain, desk.me)
        words = f"Put operator {to_hex(which)} back on the active list."
        intent.will(words, lambda c: c.staking.unjail(desk.me, which))
        if await intent.carry_out(how):
            emit(await _shown(desk, which, how.as_json), how.as_json)
    return 0


@app.command
async def lodge(amount: str, /, *, operator: Operator = None, how: Signing = Signing()) -> int:
    """Lodge a surety, out of which an operator's votes as a juror take their deposits.

    Parameters
    ----------
    amount
        In coins, such as 30.
    """
    async with context.desk(how) as desk:
        which, wei = _operator(desk, operator), desk.wei(amount)
        intent = Intent(desk.chain, desk.me)
        await intent.will_allow(desk.record.court, wei)
        words = f"Lodge {desk.money(wei)} as the surety of {to_hex(which)}; a vote that is outvoted loses its deposit."
        intent.will(words, lambda c: c.court.lodge(desk.me, which, wei))
        if await intent.carry_out(how):
            emit(await _shown(desk, which, how.as_json), how.as_json)
    return 0


@app.command
async def take_back(amount: str, /, *, operator: Operator = None, how: Signing = Signing()) -> int:
    """Take back of an operator's surety what no vote has set aside.

    Parameters
    ----------
    amount
        In coins, such as 30.
    """
    async with context.desk(how) as desk:
        which, wei = _operator(desk, operator), desk.wei(amount)
        intent = Intent(desk.chain, desk.me)
        words = f"Take {desk.money(wei)} of the surety of {to_hex(which)} back."
        intent.will(words, lambda c: c.court.take_back(desk.me, which, wei))
        if await intent.carry_out(how):
            emit(await _shown(desk, which, how.as_json), how.as_json)
    return 0


@app.command
async def appeal(dispute: str, /, *, how: Signing = Signing()) -> int:
    """Appeal a ruling: as who lost it (an operator, its owner, the accuser), or as a juror whom it outvoted.

    Parameters
    ----------
    dispute
        Its 0x id, as `lading audit show` names it.
    """
    async with context.desk(how) as desk:
        court, id_ = desk.chain.court, _dispute(dispute)
        found = await court.dispute(id_)
        if found is None:
            raise BadSettings(f"The court knows no dispute {to_hex(id_)}.", hint="lading audit show JOB names it.")
        bond = (await court.params_of(id_)).bond << (found.appeals + 1)
        intent = Intent(desk.chain, desk.me)
        await intent.will_allow(court.address, bond)
        words = (
            f"Appeal with a bond of {desk.money(bond)}: a larger committee rules anew, and who is wrong loses its bond."
        )
        intent.will(words, lambda c: c.court.appeal(desk.me, id_))
        if await intent.carry_out(how):
            emit(
                {"dispute": to_hex(id_), "bond": desk.money(bond, how.as_json), "appeals": found.appeals + 1},
                how.as_json,
            )
    return 0


@app.command
async def show(*, operator: Operator = None, how: Asking = Asking()) -> int:
    """Show the stakes that you own, or one operator's."""
    async with context.desk(how) as desk:
        if operator is not None:
            emit(await _shown(desk, _operator(desk, operator), how.as_json), how.as_json)
            return 0
        owned = (await history.read(desk.chain, desk.me.address)).operators
        emit_rows([await _shown(desk, one, how.as_json) for one in owned], how.as_json, "You have nothing at stake.")
    return 0


async def _shown(desk: Desk, operator: Address, as_json: bool) -> dict[str, Any]:
    found = await desk.chain.staking.operator(operator)
    if found is None:
        return {"operator": to_hex(operator), "stake": desk.money(0, as_json), "state": "nobody staked for it"}
    active = await desk.chain.staking.is_active(operator)
    jailed = found.jailed_until > time.time()
    return {
        "operator": to_hex(operator),
        "owner": to_hex(found.owner),
        "stake": desk.money(found.stake, as_json),
        "leaving": desk.money(found.unbonding, as_json),
        "leaves_at": context.moment(found.unlock_at if found.unbonding else 0, as_json),
        "disputes": found.open_disputes,
        "surety": desk.money(await desk.chain.court.surety_of(operator), as_json),
        "state": "active"
        if active
        else f"jailed until {context.moment(found.jailed_until)}"
        if jailed
        else "not active",
    }


def _operator(desk: Desk, typed: str | None) -> Address:
    return desk.me.address if typed is None else context.typed_address(typed, "operator")


def _dispute(typed: str) -> Digest:
    try:
        return Digest(from_hex(typed, 32))
    except ValueError as error:
        raise BadSettings(f"That is no dispute's id: {error}.", hint="It is 0x and 64 digits.") from None


def _signature(typed: str | None) -> bytes:
    if not typed:
        return b""
    try:
        return from_hex(typed, 65)
    except ValueError as error:
        raise BadSettings(f"The consent is no signature: {error}.", hint="It is 0x and 130 digits.") from None
