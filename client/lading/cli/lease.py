"""`lading lease`: reserve capacity on a host, and serve what was reserved, paid as it is served."""

import time
from typing import Annotated, Any

from cyclopts import App, Parameter

from lading.cli import auctions, context, history
from lading.cli.context import Desk
from lading.cli.flags import Asking, Signing, Switch
from lading.cli.intent import Intent
from lading.cli.output import emit, emit_rows, out
from lading.errors import BadSettings
from lading_contracts import events
from lading_contracts.leases import Lease, LeaseRequest, State
from lading_protocol.eip712 import unpack
from lading_protocol.errors import LadingError
from lading_protocol.ids import ZERO_ADDRESS, Digest, Wei, digest, from_hex, short, to_hex
from lading_protocol.receipts import Served

app = App(name="lease", help="Reserve capacity on a host, paid as it is served.")
HOUR = 3_600
_ACCEPT_SECONDS = HOUR
_PACKED = 2 * 32 + 65
Name = Annotated[str, Parameter(help="The lease's 0x id, as lading lease list prints it.")]


@app.command
async def bid(
    agent: str,
    /,
    *,
    slots: int = 1,
    hours: float,
    rate: str,
    bond: str = "0",
    host_bond: str | None = None,
    host: str | None = None,
    start: int | None = None,
    how: Signing = Signing(),
) -> int:
    """Bid for slots of an agent. The whole price and your bond wait in the contract; what is not served comes back.

    Parameters
    ----------
    agent
        The agent's 0x digest.
    slots
        Jobs at once.
    hours
        How long.
    rate
        What a slot costs an hour, in coins.
    bond
        What you lose at most if you leave early, in coins.
    host_bond
        What the host loses at most if it stops serving (default the same).
    host
        The host's 0x address (default whoever accepts first).
    start
        When it begins, in Unix seconds (default in an hour; it must be accepted before).
    """
    async with context.desk(how) as desk:
        begins = int(time.time()) + _ACCEPT_SECONDS if start is None else start
        request = LeaseRequest(
            host=ZERO_ADDRESS if host is None else context.typed_address(host, "host"),
            agent=auctions.typed_agent(agent),
            slots=slots,
            start=begins,
            duration=int(hours * HOUR),
            rate=Wei(desk.wei(rate) // HOUR),
            host_bond=Wei(desk.wei(bond if host_bond is None else host_bond)),
            tenant_bond=Wei(desk.wei(bond)),
            accept_by=begins,
        )
        intent = Intent(desk.chain, desk.me)
        await intent.will_allow(desk.record.leases, request.escrow)
        made: list[Digest] = []

        async def send(chain: Any) -> None:
            sent = await chain.leases.bid(desk.me, request)
            if chain is desk.chain:
                made.append(chain.leases.id_in(sent))

        intent.will(f"Bid for {_words(desk, request)}", send)
        if await intent.carry_out(how):
            emit({"lease": to_hex(made[0]), "held": desk.money(request.escrow, how.as_json)}, how.as_json)
    return 0


@app.command
async def cancel(lease: Name, /, *, how: Signing = Signing()) -> int:
    """Take back a bid that nobody accepted."""
    return await _act(how, lease, "Take back the bid {0}.", "cancel")


@app.command
async def accept(lease: Name, /, *, operator: str | None = None, how: Signing = Signing()) -> int:
    """Accept a bid for your host, with its bond.

    Parameters
    ----------
    operator
        The host's 0x address (default your own), which you must own.
    """
    async with context.desk(how) as desk:
        id_, found = await _find(desk, lease)
        which = desk.me.address if operator is None else context.typed_address(operator, "operator")
        intent = Intent(desk.chain, desk.me)
        await intent.will_allow(desk.record.leases, found.host_bond)
        words = f"Keep {_words(desk, found)} If it is not served, up to {desk.money(found.host_bond)} are lost."
        intent.will(words, lambda c: c.leases.accept(desk.me, id_, which))
        if await intent.carry_out(how):
            emit(await _shown(desk, id_, how.as_json), how.as_json)
    return 0


@app.command
async def sign(lease: Name, seconds: int, /, *, how: Signing = Signing()) -> int:
    """As the tenant, sign how many seconds were served so far; give what it prints to the host.

    Parameters
    ----------
    seconds
        In all, since the lease began. A later word contains the earlier ones.
    """
    async with context.desk(how) as desk:
        id_, found = await _find(desk, lease)
        if found.tenant != desk.me.address:
            raise BadSettings("You are not this lease's tenant.", hint="Name the tenant's key: --key.")
        due = (seconds - found.served) * found.rate * found.slots
        words = (
            f"You sign that {seconds} seconds of lease {short(id_)} were served: the host may take {desk.money(due)}."
        )
        if not how.as_json:
            out.print(words, markup=False, soft_wrap=True)
        if how.dry_run:
            emit({"dry_run": True, "signs": [words]}, how.as_json)
            return 0
        signed = Served(id_, seconds).sign(desk.record.leases_domain, desk.me)
        emit({"lease": to_hex(id_), "served": seconds, "signed": to_hex(signed.pack())}, how.as_json)
    return 0


@app.command
async def collect(signed: str, /, *, how: Signing = Signing()) -> int:
    """Bring a tenant's word to the chain: it pays the host's payout address.

    Parameters
    ----------
    signed
        What `lading lease sign` printed.
    """
    async with context.desk(how) as desk:
        try:
            word = unpack(Served, from_hex(signed, _PACKED))
        except (ValueError, LadingError) as error:
            raise BadSettings(f"This is no signed word: {error}", hint="Give what lading lease sign printed.") from None
        found = await desk.chain.leases.lease(word.value.lease)
        before = 0 if found is None else found.served
        due = 0 if found is None else (word.value.served - before) * found.rate * found.slots
        intent = Intent(desk.chain, desk.me)
        words = (
            f"Collect {desk.money(max(0, due))} for {word.value.served - before} seconds of {short(word.value.lease)}."
        )
        intent.will(words, lambda c: c.leases.collect(desk.me, word))
        if await intent.carry_out(how):
            emit(await _shown(desk, Digest(word.value.lease), how.as_json), how.as_json)
    return 0


@app.command(name="quit")
async def quit_(lease: Name, /, *, how: Signing = Signing()) -> int:
    """As the host, give up what is not served: that part of your bond goes to the tenant. Collect first."""
    return await _act(how, lease, "Stop serving {0} and pay the penalty to its tenant.", "quit")


@app.command
async def vacate(lease: Name, /, *, how: Signing = Signing()) -> int:
    """As the tenant, give up what is not served: that part of your bond goes to the host."""
    return await _act(how, lease, "Leave {0} and pay the penalty to its host.", "vacate")


@app.command
async def finish(lease: Name, /, *, how: Signing = Signing()) -> int:
    """End a lease that ran out a day ago, or whose every second was served; anyone may."""
    return await _act(how, lease, "End {0}: what is left of its price and bonds is paid.", "finish")


@app.command(name="list")
async def list_(*, everything: Switch = False, how: Asking = Asking()) -> int:
    """List the leases that you are in, and the bids that any host may accept.

    Parameters
    ----------
    everything
        Everybody's, ended ones too.
    """
    async with context.desk(how) as desk:
        rows = []
        async for event in history.past(desk.chain, (desk.record.leases,)):
            if not isinstance(event, events.LeaseBid):
                continue
            found = await desk.chain.leases.lease(event.id)
            if found is not None and (everything or _concerns(desk, found)):
                rows.append(_row(desk, event.id, found, how.as_json))
        emit_rows(rows, how.as_json, "No capacity is reserved by you or from you.")
    return 0


def _concerns(desk: Desk, found: Lease) -> bool:
    mine = desk.me.address in (found.tenant, found.host, found.bond_payer)
    return found.state is not State.ENDED and (mine or (found.state is State.BID and found.host == ZERO_ADDRESS))


async def _act(how: Signing, lease: str, words: str, verb: str) -> int:
    """One verb of the lease contract that takes nothing but the lease."""
    async with context.desk(how) as desk:
        id_, _ = await _find(desk, lease)
        intent = Intent(desk.chain, desk.me)
        intent.will(words.format(f"lease {short(id_)}"), lambda c: getattr(c.leases, verb)(desk.me, id_))
        if await intent.carry_out(how):
            emit(await _shown(desk, id_, how.as_json), how.as_json)
    return 0


async def _find(desk: Desk, text: str) -> tuple[Digest, Lease]:
    """Raises BadSettings."""
    try:
        id_ = digest(text)
    except ValueError as error:
        raise BadSettings(f"The lease is no id: {error}.", hint="List them: lading lease list.") from None
    found = await desk.chain.leases.lease(id_)
    if found is None:
        raise BadSettings(f"There is no lease {text}.", hint="List them: lading lease list.")
    return id_, found


async def _shown(desk: Desk, id_: Digest, as_json: bool) -> dict[str, Any]:
    found = await desk.chain.leases.lease(id_)
    assert found is not None
    return _row(desk, id_, found, as_json)


def _row(desk: Desk, id_: Digest, found: Lease, as_json: bool) -> dict[str, Any]:
    return {
        "lease": to_hex(id_),
        "agent": to_hex(found.agent) if as_json else short(found.agent),
        "tenant": to_hex(found.tenant) if as_json else short(found.tenant),
        "host": ("any" if found.host == ZERO_ADDRESS else short(found.host)) if not as_json else to_hex(found.host),
        "slots": found.slots,
        "from": context.moment(found.start, as_json),
        "hours": round(found.duration / HOUR, 2),
        "hourly": desk.money(found.rate * HOUR, as_json),
        "served": f"{found.served} of {found.duration} s" if not as_json else found.served,
        "state": found.state.name.lower(),
    }


def _words(desk: Desk, lease: LeaseRequest | Lease) -> str:
    return (
        f"{lease.slots} slot(s) of agent {short(lease.agent)} for {lease.duration / HOUR:g} hours from "
        f"{context.moment(lease.start)}, at {desk.money(lease.rate * HOUR)} a slot and hour."
    )
