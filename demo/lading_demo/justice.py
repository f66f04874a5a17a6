"""The last scenes: two cheats found, tried and slashed; vouchers redeemed, revenue split; and the books."""

from collections.abc import Sequence

from rich.table import Table

from lading_contracts import events
from lading_demo.books import Estate
from lading_demo.cast import Party
from lading_demo.scenes import CHAT, ROOT, STORY, ask, lade
from lading_demo.theatre import Theatre, together
from lading_protocol.ids import address, to_hex
from lading_protocol.pricing import format_amount

MOST_QUESTIONS = 60


async def a_cheat(t: Theatre, host: Party, model: str, words: str) -> None:
    """Starts the dishonest node, sends it work, and follows every case against it to its end."""
    async with t.screen.scene(f"A host cheats: it serves {words} under the agent's name"):
        stake = await t.contracts.staking.slashable(host.address)
        cheap = "0.10"
        await t.raise_node(host, cheap, cheap, [CHAT], model=ROOT / f"tests/vectors/models/{model}/model.onnx")
        await t.screen.until(f"{host.name} is linked, and cheaper than the others", lambda: t.linked(host))
        asked = 0

        async def accused() -> bool:
            nonlocal asked
            if asked < MOST_QUESTIONS and await t.linked(host):
                asked += 1
                await ask(t, STORY, max_tokens=80)
            return any(row["host"] == to_hex(host.address) for row in (await t.get("/lading/v1/audits"))["disputes"])

        await t.screen.until("its receipts are anchored, and a later block picks some for audit", accused, every=0.1)
        await t.stage.stop(host.name)
        await show_findings(t, host, asked)
        rulings = await closed_cases(t, host)
        await show_rulings(t, host, stake, rulings)


async def show_findings(t: Theatre, host: Party, asked: int) -> None:
    audits = (await t.get("/lading/v1/audits"))["audits"]
    guilty = [audit for audit in audits if audit["host"] == to_hex(host.address) and audit["verdict"] == "guilty"]
    t.screen.fact(f"{asked} answers later, public randomness has picked receipts of it; auditors re-ran them:")
    for finding in guilty[0]["findings"]:
        t.screen.fact(f"  {t.name_of(finding['auditor'])}: {finding['reason']}")


async def closed_cases(t: Theatre, host: Party) -> Sequence[events.Executed]:
    """Waits until no case against this host is open any more; returns what was executed."""

    async def all_closed() -> bool:
        t.stage.check()
        await t.books.read()
        found = await t.contracts.staking.operator(host.address)
        executed = [ruling for ruling in t.books.rulings if t.books.accused[ruling.id] == host.address]
        return bool(executed) and found is not None and not found.open_disputes

    await t.screen.until("jury drawn, votes committed and revealed, appeal window over", all_closed, every=0.5)
    return [ruling for ruling in t.books.rulings if t.books.accused[ruling.id] == host.address]


async def show_rulings(t: Theatre, host: Party, stake: int, rulings: Sequence[events.Executed]) -> None:
    fewest = 99
    for n, ruling in enumerate(rulings, 1):
        guilty = [vote.juror for vote in t.books.votes if vote.id == ruling.id and vote.verdict == 2]
        fewest = min(fewest, len(guilty))
        names = ", ".join(t.name_of(to_hex(juror)) for juror in guilty)
        t.screen.fact(f"case {n}: jurors drawn by lot vote guilty: {names}; slashed {lade(ruling.slashed)}")
    t.screen.claim("at least two auditors confirm each case on chain", fewest >= 2)
    slashed = sum(ruling.slashed for ruling in rulings)
    left = await t.contracts.staking.slashable(host.address)
    shares = [sum(getattr(ruling, share) for ruling in rulings) for share in ("burnt", "reward", "fee", "refunded")]
    burnt, reward, fee, refunded = map(lade, shares)
    t.screen.fact(f"{burnt} burnt, {reward} to the jurors, {fee} to the challenger, {refunded} back to the consumer")
    held = slashed > 0 and stake - left == slashed == sum(shares)
    t.screen.claim(f"the contract slashed {lade(slashed)} of the cheat's {lade(stake)}", held)


async def honest_unharmed(t: Theatre) -> None:
    """Nobody but the two cheats was ever accused."""
    audits = (await t.get("/lading/v1/audits?limit=500"))["audits"]
    cheats = {t.cast.greedy.address, t.cast.thrifty.address}
    others = [audit for audit in audits if address(audit["host"]) not in cheats]
    cleared = [audit for audit in others if audit["verdict"] == "honest"]
    t.screen.claim(
        f"the honest hosts passed {len(cleared)} audits and were never flagged",
        bool(cleared)
        and set(t.books.accused.values()) <= cheats
        and not any(audit["verdict"] == "guilty" for audit in others),
    )


async def fees(t: Theatre) -> dict[str, int]:
    """What the coordinator paid for findings, by auditor, once it pays no more."""
    paid: dict[str, int] = {}

    async def all_paid() -> bool:
        nonlocal paid
        before, rows = paid, (await t.get("/lading/v1/audits?limit=500"))["auditors"]
        paid = {row["auditor"]: int(row["paid"]["wei"]) for row in rows}
        return bool(paid) and paid == before

    await t.screen.until("the auditors are paid", all_paid, every=1.0)
    return paid


async def settlement(t: Theatre) -> None:
    async with t.screen.scene("Nodes redeem their vouchers in one batch each; maker, OEM and curator claim"):
        paid = await fees(t)
        words = f"the curator paid its auditors {lade(sum(paid.values()))}, at most a tenth of a job's price a finding"
        t.screen.claim(words, sum(paid.values()) > 0)
        async with t.screen.waiting("nodes go down politely and redeem on their way out"):
            await together(*(t.stage.stop(host.name, 20) for host in t.cast.hosts))
        await t.books.read()
        for host in t.cast.operators:
            fee = paid.get(to_hex(host.address), 0)
            owed = fee + sum(int(part["amount_wei"]) for part in t.parts if part["host"] == to_hex(host.address))
            batches = [batch for batch in t.books.batches if batch.host == host.address]
            redeemed = sum(batch.host_amount + batch.royalty for batch in batches)
            work = f"its tokens' price and {lade(fee)} for audits" if fee else "its tokens' price"
            words = f"{host.name} redeemed {lade(redeemed)}: {work}, to the wei"
            t.screen.claim(words if redeemed == owed else f"{words} (owed {lade(owed)})", redeemed == owed)
            if await t.contracts.settlement.host_balance(host.address):
                await t.contracts.settlement.withdraw(host.key, host.address)
        for who in (t.cast.maker, t.cast.oem, t.cast.curator):
            before = await t.contracts.coin.balance(who.address)
            for agent, table in t.books.terms.values():
                for k, entry in enumerate(table):
                    if entry.payee == who.address and await t.contracts.settlement.claimable(agent, table, k):
                        await t.contracts.settlement.claim(who.key, agent, table, k)
            gained = await t.contracts.coin.balance(who.address) - before
            t.screen.claim(f"{who.name} claimed {lade(gained)} from the split pools", gained > 0)


async def worth(t: Theatre, party: Party) -> Estate:
    """All that a party owns, at its hot and its cold address."""
    estates = [await t.books.estate(one) for one in party.addresses]
    return Estate(*(sum(getattr(estate, field) for estate in estates) for field in Estate.__struct_fields__))


async def the_books(t: Theatre, before: dict[str, Estate]) -> None:
    """Each party's gain or loss and why; the sum must be zero to the wei, and the contracts must hold what they owe."""
    async with t.screen.scene("The books"):
        await t.books.read()
        burnt = sum(int(slash.burnt) for slash in t.books.slashes)
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1))
        table.add_column("party")
        table.add_column("LADE", justify="right")
        table.add_column("why")
        total = burnt
        for party in t.cast.everyone:
            change = (await worth(t, party)).total - before[party.name].total
            total += change
            table.add_row(party.name, _signed(change), why(t, party))
        table.add_row("burnt", _signed(burnt), "the burnt shares of the slashes")
        table.add_row("[bold]sum[/]", f"[bold]{_signed(total)}[/]", "")
        t.screen.table(table)
        t.screen.claim("the sum is zero to the wei", total == 0)
        for holding in t.books.holdings():
            held = lade(holding.held)
            t.screen.claim(f"{holding.contract} holds {held}, exactly what it owes", holding.held == holding.owed)


def _signed(wei: int) -> str:
    return f"{'+' if wei > 0 else ''}{format_amount(wei, 18)}"


def why(t: Theatre, party: Party) -> str:
    cast = t.cast
    if party is cast.consumer:
        tokens = sum(part["tokens"] for part in t.parts)
        return f"{tokens:,} tokens and prompts, less refunds"
    if party in (cast.greedy, cast.thrifty):
        return "its tokens, less what was slashed"
    if party is cast.curator:
        return "its share, challenger's fees, less audits"
    if party in (cast.maker, cast.oem):
        return f"{party.name}'s share of the split pools"
    return "its tokens, audits, juror's rewards"
