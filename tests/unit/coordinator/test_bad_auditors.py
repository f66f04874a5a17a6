"""Auditors that do not do their work: one that approves everything, friends that clear each other, one that frames."""

import asyncio
from pathlib import Path

from factories import key
from lading.keyfile import write_key
from lading_coordinator.audits.records import Audit
from lading_coordinator.core.conduct import Kind
from lading_protocol.audit import Verdict
from lading_protocol.economics import AuditRates
from lading_protocol.eip712 import unpack
from lading_protocol.ids import Address
from lading_protocol.lots import canary_leaf
from lading_protocol.receipts import Receipt
from lading_protocol.transcript import merkle_root
from unit.coordinator.conftest import Play
from unit.coordinator.host import Habits
from unit.coordinator.world import World

# Long enough to be made a canary of.
LONG = Habits(price_out=1, length=40)


async def finished(world: World, count: int, seconds: int = 400) -> list[Audit]:
    """The audits once so many are over and none is on its way."""
    records = world.coordinator.records
    for _ in range(seconds):
        audits = records.audits()
        if len(audits) >= count and all(one.state in ("done", "canary") for one in audits):
            return audits
        await asyncio.sleep(1)
    raise AssertionError(records.audits())


async def ask(world: World, api_key: str, count: int) -> None:
    for n in range(count):
        words = " ".join("x" * (1 + (n + at) % 7) for at in range(3 + n))
        assert (await world.chat(api_key, messages=[{"role": "user", "content": words}], max_tokens=64)).status == 200


def test_a_lazy_auditor_is_struck_off_by_a_canary_it_cannot_tell_from_a_case(play: Play, tmp_path: Path) -> None:
    write_key(tmp_path / "canary key", key("canary"))

    async def story(world: World) -> None:
        await world.host("server", LONG)
        await world.host("canary", Habits(length=40))
        lazy = await world.host("lazy", Habits(length=40, verdict=1))
        for label in ("a", "b", "c"):
            await world.host(label, Habits(length=40))
        api_key, conduct = await world.session(), world.coordinator.conduct
        asked = 0
        while not conduct.excluded(lazy.key.address) and asked < 60:
            await ask(world, api_key, 3)
            asked += 3
            await asyncio.sleep(10)
        assert conduct.auditor(lazy.key.address).missed
        audits = await finished(world, asked)
        canaries = [one for one in audits if one.state == "canary"]
        for one in canaries:
            told = world.coordinator.canaries.told(one.leaf)
            round_ = world.coordinator.records.round(one.round)
            assert told is not None
            assert round_ is not None
            tree = world.coordinator.records.tree(one.round)
            assert merkle_root(tree) == round_.root
            assert told.commitment == canary_leaf(told.salt, one.leaf, told.fault)
            assert {told.commitment, one.leaf} <= set(tree), "fixed and anchored before anybody was asked"
        assert not any(one.state == "canary" and one.verdict is not Verdict.GUILTY for one in audits)
        assert all(one.verdict is Verdict.HONEST for one in audits if one.state == "done")
        assert world.coordinator.records.disputes() == []
        for label in ("a", "b", "c"):
            assert not conduct.auditor(key(label).address).missed
        before = len(lazy.checked)
        await ask(world, api_key, 5)
        await finished(world, asked + 5)
        assert len(lazy.checked) == before, "it is never asked again"
        packed = {case.receipt for host in world.hosts for case in host.checked}
        forged = {one for one in packed if is_from(one, key("canary").address)}
        assert forged
        assert {len(one) for one in forged} <= {len(one) for one in packed - forged}

    rates = AuditRates(canary_ppm=1_000_000)
    play(story, audit_canary_key=str(tmp_path / "canary key"), rates=rates)


def is_from(packed: bytes, host: Address) -> bool:
    return unpack(Receipt, packed).value.host == host


def test_friends_who_clear_a_cheat_are_found_by_second_looks(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("cheat", Habits(price_out=1, swaps=True))
        friend = await world.host("friend", Habits(verdict=1))
        for label in ("a", "b", "c", "d"):
            await world.host(label)
        api_key, conduct = await world.session(), world.coordinator.conduct
        for _ in range(40):
            await ask(world, api_key, 2)
            await asyncio.sleep(5)
            if conduct.auditor(friend.key.address).outvoted:
                break
        assert conduct.auditor(friend.key.address).outvoted
        for label in ("a", "b", "c", "d"):
            assert not conduct.auditor(key(label).address).outvoted
        await asyncio.sleep(5)
        assert world.coordinator.records.disputes(), "the cheat is accused all the same"

    play(story, rates=AuditRates(reaudit_ppm=400_000))


def test_an_auditor_that_frames_is_outvoted_and_rests_and_nobody_is_accused(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("honest", Habits(price_out=1))
        framer = await world.host("framer", Habits(verdict=2))
        for label in ("a", "b", "c"):
            await world.host(label)
        api_key, conduct = await world.session(), world.coordinator.conduct
        for _ in range(40):
            await ask(world, api_key, 3)
            await asyncio.sleep(5)
            if conduct.excluded(framer.key.address):
                break
        assert "outvoted" in conduct.excluded(framer.key.address)
        audits = await finished(world, 3)
        assert {one.verdict for one in audits} == {Verdict.HONEST}
        assert world.coordinator.records.disputes() == []
        kinds = {kind for (kind,) in world.coordinator.store.rows("select distinct kind from remarks")}
        assert kinds == {Kind.OUTVOTED.value}

    play(story)
