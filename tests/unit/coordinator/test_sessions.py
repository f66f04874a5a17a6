"""API keys and their sessions: activation by the chain, expiry, revocation, outages, restarts, bounds."""

import asyncio

from factories import key
from lading_coordinator.errors import LedgerFailed
from lading_protocol.ids import address, to_hex
from lading_protocol.receipts import SessionConsent
from unit.coordinator.conftest import Play
from unit.coordinator.world import COIN, World


def test_from_nothing_to_an_answer(play: Play) -> None:
    """The consumer's own steps: ask for a key, authorize its session with the consent, use it, look at it."""

    async def story(world: World) -> None:
        await world.host("one")
        made = await world.ask("POST", "/lading/v1/sessions", {"payer": to_hex(world.payer.address)})
        assert made.status == 201
        api_key, session = made.json["api_key"], address(made.json["session"])
        consent = bytes.fromhex(made.json["consent"][2:])
        early = await world.chat(api_key)
        assert (early.status, early.error["code"]) == (401, "session_not_authorized")
        assert (await world.ask("GET", "/lading/v1/session", api_key=api_key)).json["state"] == "session_not_authorized"
        await world.contracts.coin.approve(world.payer, world.record.settlement, COIN)
        await world.contracts.settlement.deposit(world.payer, COIN)
        expiry = int(world.clock()) + 600
        await world.contracts.settlement.authorize(world.payer, session, COIN // 2, expiry, consent)
        await asyncio.sleep(1)
        answer = await world.chat(api_key)
        assert answer.status == 200
        seen = (await world.ask("GET", "/lading/v1/session", api_key=api_key)).json
        assert seen["state"] == "active"
        assert seen["spent"]["wei"] == answer.headers["x-lading-cost"]
        assert seen["chain"]["cap"]["wei"] == str(COIN // 2)
        assert [channel["host"] for channel in seen["channels"]] == [answer.headers["x-lading-host"]]
        assert seen["channels"][0]["promised"]["wei"] == answer.headers["x-lading-cost"]

    play(story)


def test_expired_revoked_and_unknown_keys(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("one")
        short = await world.session(life=30)
        assert (await world.chat(short)).status == 200
        await asyncio.sleep(40)
        expired = await world.chat(short)
        assert (expired.status, expired.error["code"]) == (401, "session_expired")
        seat = await world.coordinator.sessions.seat(short)
        longer = int(world.clock()) + 3600
        await world.contracts.settlement.authorize(world.payer, seat.key.address, 100 * COIN, longer)
        await asyncio.sleep(2)
        assert (await world.chat(short)).status == 200
        await world.contracts.settlement.revoke(world.payer, seat.key.address)
        await asyncio.sleep(2)
        revoked = await world.chat(short)
        assert (revoked.status, revoked.error["code"]) == (401, "session_revoked")
        unknown = await world.chat("lk_other")
        assert (unknown.status, unknown.error["code"]) == (401, "invalid_api_key")
        missing = await world.chat("")
        assert (missing.status, missing.error["code"]) == (401, "missing_api_key")

    play(story)


def test_an_outage_of_the_chain_stops_nobody_who_was_in(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("one")
        api_key = await world.session()
        assert (await world.chat(api_key)).status == 200
        late = world.coordinator.sessions.create(world.payer.address).api_key
        world.chain.down = True
        await asyncio.sleep(60)
        assert (await world.chat(api_key)).status == 200
        assert (await world.chat(late)).error["code"] == "chain_unreachable"
        assert (await world.ask("GET", "/readyz")).json["chain"] is False
        world.chain.down = False
        await asyncio.sleep(5)
        assert (await world.ask("GET", "/readyz")).json["chain"] is True

    play(story)


def test_keys_outlive_a_restart_even_without_the_chain(play: Play) -> None:
    async def story(world: World) -> None:
        api_key = await world.session()
        await world.coordinator.sessions.admit(api_key)
        before = await world.coordinator.sessions.seat(api_key)
        world.chain.down = True
        world.net.kill(world.key.address)
        await world.start()
        again = await world.coordinator.sessions.admit(api_key)
        assert again.key.address == before.key.address
        assert again.payer == world.payer.address
        assert again.limit == 100 * COIN
        await world.coordinator.close()

    play(story)


def test_keys_of_another_coordinator_key_are_not_taken_for_ours(play: Play) -> None:
    """What it would sign for them was never authorized: every host would refuse it, and nobody would know why."""

    async def story(world: World) -> None:
        await world.host("one")
        api_key = await world.session()
        assert (await world.chat(api_key)).status == 200
        await world.coordinator.close()
        world.key = key("another coordinator")
        await world.start()
        async with world.coordinator.working():
            answer = await world.chat(api_key)
            assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")

    play(story)


def test_the_stored_file_holds_no_secret(play: Play) -> None:
    async def story(world: World) -> None:
        api_key = await world.session()
        payer = await world.coordinator.sessions.admit(api_key)
        stored = b"".join(path.read_bytes() for path in world.coordinator.settings.home_path.glob("*.sqlite*"))
        assert api_key.encode() not in stored
        assert payer.key.secret not in stored
        assert bytes(payer.key.address) in stored

    play(story)


def test_the_consent_is_the_session_keys_signature(play: Play) -> None:
    async def story(world: World) -> None:
        made = world.coordinator.sessions.create(world.payer.address)
        from lading_protocol.eip712 import Signed
        from lading_protocol.ids import Signature

        signed = Signed(SessionConsent(world.payer.address), Signature(made.consent))
        signed.check(world.record.settlement_domain, made.session)

    play(story)


def test_a_full_disk_stops_no_answer_and_loses_no_record(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("one")
        api_key = await world.session()
        assert (await world.chat(api_key)).status == 200
        await world.coordinator.ledger.flush()
        pages = world.coordinator.store.rows("pragma page_count")[0][0]
        world.coordinator.store.rows(f"pragma max_page_count={pages}")
        filler = [("insert into agents values (randomblob(32), randomblob(400), 1)", ())]
        for _ in range(400):
            try:
                world.coordinator.store.write(filler)
            except LedgerFailed:
                break
        world.coordinator.store.write([("delete from agents where length(manifest)=400", ())])
        held = world.coordinator.store.rows("select count(*) from jobs")[0][0]
        big = "word " * 2000
        for _ in range(8):
            answer = await world.chat(api_key, messages=[{"role": "user", "content": big}])
            assert answer.status == 200
        await asyncio.sleep(200)
        assert world.coordinator.store.rows("select count(*) from jobs")[0][0] < held + 8
        new = await world.ask("POST", "/lading/v1/sessions", {"payer": to_hex(key("me").address)})
        assert new.status in (201, 503)
        assert (await world.ask("GET", "/")).status == 200
        world.coordinator.store.rows("pragma max_page_count=1000000")
        await asyncio.sleep(10)
        assert world.coordinator.store.rows("select count(*) from jobs")[0][0] == held + 8

    play(story, audits=False)


def test_sessions_are_bounded(play: Play) -> None:
    async def story(world: World) -> None:
        body = {"payer": to_hex(key("me").address)}
        answers = [await world.ask("POST", "/lading/v1/sessions", body) for _ in range(14)]
        assert [answer.status for answer in answers].count(429) >= 1
        assert answers[-1].error["code"] == "too_many_sessions"
        waiting = world.coordinator.store.rows("select count(*) from sessions")[0][0]
        assert waiting == [answer.status for answer in answers].count(201)
        await asyncio.sleep(3700)
        assert world.coordinator.store.rows("select count(*) from sessions")[0][0] == 0
        bad = await world.ask("POST", "/lading/v1/sessions", {"payer": "0x12"})
        assert (bad.status, bad.error["param"]) == (400, "payer")
        assert (await world.ask("POST", "/lading/v1/sessions", b"{")).status == 400

    play(story)
