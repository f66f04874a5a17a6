"""Audits from an answer to a verdict of the court, with liars, silence, crashes and an unreachable chain."""

import asyncio
from typing import Any

import msgspec

from factories import key
from lading_contracts.court import Ballot, Verdict
from lading_net.messages import MessageStream
from lading_protocol.court import Phase
from lading_protocol.eip712 import unpack
from lading_protocol.ids import Digest
from lading_protocol.messages import CASE, Case, FromChallenger, GetCase, Refuse
from lading_protocol.receipts import Receipt
from unit.coordinator.conftest import Play
from unit.coordinator.host import Habits
from unit.coordinator.world import COIN, World

_case = msgspec.msgpack.Decoder(FromChallenger)


async def audits(world: World) -> Any:
    return (await world.ask("GET", "/lading/v1/audits?limit=100")).json


async def settled(world: World, what: str = "audits", seconds: int = 120) -> Any:
    """The audits once none is on its way any more."""
    for _ in range(seconds):
        tree = await audits(world)
        if tree[what] and all(one["state"] not in ("pending", "accused", "disputed", "open") for one in tree[what]):
            return tree
        await asyncio.sleep(1)
    raise AssertionError(await audits(world))


async def jury(world: World, dispute: Digest, labels: list[str], verdict: Verdict) -> None:
    """The drawn jurors read the case and vote, as nodes do."""
    court = world.contracts.court
    found = await court.dispute(dispute)
    while found is None or found.phase is not Phase.VOTING:
        await asyncio.sleep(1)
        found = await court.dispute(dispute)
    who = {key(label).address: key(label) for label in labels}
    drawn = [who[juror] for juror in await court.jurors(dispute, found.round)]
    ballots = {}
    for juror in drawn:
        transport = next(host.transport for host in world.hosts if host.key.address == juror.address)
        link = await transport.dial(world.endpoint, None)
        messages: MessageStream[Case | Refuse] = MessageStream(await link.open(CASE), _case)
        messages.send(GetCase(dispute))
        case = await messages.recv()
        assert isinstance(case, Case)
        assert case.emitted
        ballots[juror.address] = Ballot(verdict, Digest(bytes(32)), b"\x01" * 32)
        commitment = ballots[juror.address].commitment(dispute, found.round, juror.address)
        await court.commit(juror, dispute, commitment)
    await asyncio.sleep(max(found.commit_by - world.clock(), 0) + 1)
    for juror in drawn:
        await court.reveal(juror, dispute, ballots[juror.address])


def test_honest_hosts_are_never_flagged(play: Play) -> None:
    async def story(world: World) -> None:
        for label in ("one", "two", "three"):
            await world.host(label)
        api_key = await world.session()
        for i in range(12):
            await world.chat(api_key, messages=[{"role": "user", "content": "x" * i + "!"}], max_tokens=1 + i)
        await world.ask("POST", "/v1/embeddings", {"model": "storyteller", "input": ["a", "b"]}, api_key)
        tree = await settled(world)
        assert len(tree["audits"]) == 13
        assert {one["verdict"] for one in tree["audits"]} == {"honest"}
        assert tree["disputes"] == []
        assert all(finding["auditor"] != one["host"] for one in tree["audits"] for finding in one["findings"])

    play(story)


def test_a_swapped_model_is_found_confirmed_and_slashed(play: Play) -> None:
    async def story(world: World) -> None:
        cheat = await world.host("cheat", Habits(price_out=1, swaps=True))
        for label in ("a", "b", "c"):
            await world.host(label)
        before = (await world.contracts.staking.operator(cheat.key.address)).stake  # type: ignore[union-attr]
        await world.chat(await world.session())
        for _ in range(60):
            tree = await audits(world)
            if tree["disputes"]:
                break
            await asyncio.sleep(1)
        (audit,) = tree["audits"]
        assert [one["verdict"] for one in audit["findings"]] == ["guilty", "guilty"]
        dispute = Digest(bytes.fromhex(tree["disputes"][0]["dispute"][2:]))
        await jury(world, dispute, ["a", "b", "c"], Verdict.GUILTY)
        tree = await settled(world, "disputes")
        assert tree["disputes"][0]["note"] == "ruled guilty"
        assert tree["audits"][0]["verdict"] == "guilty"
        operator = await world.contracts.staking.operator(cheat.key.address)
        assert operator is not None
        assert operator.stake < before
        assert operator.jailed_until > world.clock()
        await asyncio.sleep(3)
        assert world.coordinator.directory.host(cheat.key.address).barred
        assert (await world.contracts.coin.balance(world.key.address)) >= 1000 * COIN

    play(story)


def test_cannot_say_and_a_single_liar_accuse_nobody(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("honest", Habits(price_out=1))
        await world.host("shrug", Habits(verdict=0))
        await world.host("lazy", Habits(audits=False))
        api_key = await world.session()
        await world.chat(api_key)
        await asyncio.sleep(20)
        tree = await audits(world)
        assert tree["audits"][0]["state"] == "pending"
        assert {finding["verdict"] for finding in tree["audits"][0]["findings"]} == {"unknown"}
        await world.host("liar", Habits(verdict=2))
        await world.host("fair")
        await world.host("fair too")
        tree = await settled(world)
        assert tree["audits"][0]["verdict"] == "honest"
        assert tree["disputes"] == []

    play(story)


def test_an_auditor_that_shows_other_numbers_than_it_sealed_has_said_nothing(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("honest", Habits(price_out=1))
        for label in ("a", "b"):
            await world.host(label, Habits(verdict=2, salt=b"\x01" * 32))
        await world.chat(await world.session())
        await asyncio.sleep(20)
        tree = await audits(world)
        findings = tree["audits"][0]["findings"]
        assert {(one["verdict"], one["code"]) for one in findings} == {("unknown", "broken_seal")}
        assert tree["disputes"] == []

    play(story)


def test_neither_a_friend_who_is_first_nor_jurors_who_stay_away_save_a_cheat(play: Play) -> None:
    async def story(world: World) -> None:
        cheat = await world.host("cheat", Habits(price_out=1, swaps=True))
        for label in ("a", "b", "c"):
            await world.host(label)
        await world.chat(await world.session())
        court, coin, friend = world.contracts.court, world.contracts.coin, key("friend")
        await coin.transfer(world.bank, friend.address, 1000 * COIN)
        await coin.allow(friend, court.address, (await court.params()).bond)
        await world.coordinator.ledger.flush()
        (signed,) = [row[0] for row in world.coordinator.store.rows("select receipt from parts")]
        receipt = unpack(Receipt, signed)
        assert await court.open(friend, receipt) is not None
        for _ in range(60):
            if (await audits(world))["disputes"]:
                break
            await asyncio.sleep(1)
        mine = Digest(bytes.fromhex((await audits(world))["disputes"][0]["dispute"][2:]))
        found = await court.dispute(mine)
        while found is None or found.round < 2:  # nobody votes in the first round
            await asyncio.sleep(1)
            found = await court.dispute(mine)
        assert found.challenger == world.key.address
        await jury(world, mine, ["a", "b", "c"], Verdict.GUILTY)
        tree = await settled(world, "disputes")
        assert [one["note"] for one in tree["disputes"]] == ["ruled guilty"]
        operator = await world.contracts.staking.operator(cheat.key.address)
        assert operator is not None
        assert operator.jailed_until > world.clock()

    play(story)


def test_who_accuses_a_host_that_the_court_acquits_is_remembered(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("honest", Habits(price_out=1))
        for label in ("a", "b"):
            await world.host(label, Habits(verdict=2))
        await world.host("c", Habits(audits=False))
        await world.chat(await world.session())
        for _ in range(60):
            tree = await audits(world)
            if tree["disputes"]:
                break
            await asyncio.sleep(1)
        dispute = Digest(bytes.fromhex(tree["disputes"][0]["dispute"][2:]))
        await jury(world, dispute, ["a", "b", "c"], Verdict.HONEST)
        tree = await settled(world, "disputes")
        assert tree["disputes"][0]["note"] == "ruled honest"
        overruled = {who: world.coordinator.conduct.auditor(key(who).address).overruled for who in ("a", "b", "c")}
        assert overruled == {"a": 1, "b": 1, "c": 0}

    play(story)


def test_an_auditor_cannot_stop_all_auditing_with_a_number_that_is_none(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("honest", Habits(price_out=1))
        await world.host("spoiler", Habits(worst=float("nan")))
        await world.chat(await world.session())
        await asyncio.sleep(20)
        assert [one["verdict"] for one in (await audits(world))["audits"][0]["findings"]] == ["unknown"]
        await world.host("fair")
        assert (await settled(world))["audits"][0]["verdict"] == "honest"

    play(story)


def test_nobody_audits_a_host_of_the_same_owner(play: Play) -> None:
    async def story(world: World) -> None:
        host = await world.host("one")
        friend = await world.host("two", staked=False)
        owner = key("owner of " + host.key.address.hex())
        from lading_protocol.receipts import StakeConsent

        await world.contracts.coin.transfer(world.bank, owner.address, 2000 * COIN)
        await world.contracts.coin.approve(owner, world.record.staking, 2000 * COIN)
        consent = StakeConsent(owner.address).sign(world.record.staking_domain, friend.key).signature
        await world.contracts.staking.stake(owner, friend.key.address, 2000 * COIN, consent)
        await asyncio.sleep(3)
        assert (await world.chat(await world.session())).status == 200
        await asyncio.sleep(10)
        tree = await audits(world)
        assert tree["audits"][0]["state"] == "pending"
        assert not host.checked
        assert not friend.checked

    play(story)


def test_an_outage_and_a_restart_lose_no_receipt_and_no_accusation(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("cheat", Habits(price_out=1, swaps=True))
        await world.host("a")
        await world.host("b")
        await world.host("c")
        api_key = await world.session()
        await world.chat(api_key)
        world.chain.down = True
        for _ in range(3):
            assert (await world.chat(api_key)).status == 200
        await asyncio.sleep(20)
        assert not (await audits(world))["audits"]
        world.chain.down = False
        for _ in range(60):
            if (await audits(world))["disputes"]:
                break
            await asyncio.sleep(1)
        assert len((await audits(world))["audits"]) == 4
        await asyncio.sleep(5)
        tree = await audits(world)
        # One case at a time: the other three accusations wait for its outcome.
        assert len(tree["disputes"]) == 1
        records = world.coordinator.records
        assert {row.state for row in records.disputes()} == {"open"}
        assert len(list(records.audits("accused"))) == 3
        # A second coordinator process on the same files goes on where this one stands.
        step = world.coordinator.disputes.step
        await asyncio.gather(step(), step())
        assert len(records.disputes()) == 1

    play(story)


def test_a_dispute_that_was_opened_but_not_noted_is_not_opened_twice(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("cheat", Habits(price_out=1, swaps=True))
        for label in ("a", "b", "c"):
            await world.host(label)
        await world.chat(await world.session())
        for _ in range(60):
            if (await audits(world))["disputes"]:
                break
            await asyncio.sleep(1)
        held = await world.contracts.coin.balance(world.key.address)
        store = world.coordinator.store
        store.write([("delete from disputes", ()), ("update audits set state='accused'", ())])
        await world.coordinator.disputes.step()
        assert await world.contracts.coin.balance(world.key.address) == held
        assert len((await audits(world))["disputes"]) == 1

    play(story)


def test_a_coordinator_without_coins_says_so_and_waits(play: Play) -> None:
    async def story(world: World) -> None:
        await world.contracts.coin.transfer(world.key, world.bank.address, 1000 * COIN)
        await world.host("cheat", Habits(price_out=1, swaps=True))
        for label in ("a", "b", "c"):
            await world.host(label)
        await world.chat(await world.session())
        await asyncio.sleep(20)
        tree = await audits(world)
        assert tree["audits"][0]["state"] == "accused"
        await world.contracts.coin.transfer(world.bank, world.key.address, 1000 * COIN)
        await asyncio.sleep(3)
        assert (await audits(world))["disputes"]

    play(story)


def test_evidence_is_for_jurors_only(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("cheat", Habits(price_out=1, swaps=True))
        for label in ("a", "b", "c"):
            await world.host(label)
        await world.chat(await world.session())
        for _ in range(60):
            tree = await audits(world)
            if tree["disputes"]:
                break
            await asyncio.sleep(1)
        dispute = bytes.fromhex(tree["disputes"][0]["dispute"][2:])
        for asked in (dispute, b"\x07" * 32):
            link = await world.net.transport(key("nosy")).dial(world.endpoint, None)
            messages: MessageStream[Case | Refuse] = MessageStream(await link.open(CASE), _case)
            messages.send(GetCase(asked))
            assert isinstance(await messages.recv(), Refuse)

    play(story)
