"""The record of a job's audits: it holds, it is read in words, nothing in it can be changed, and it hides canaries."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from factories import key
from lading.cli.main import main
from lading.core.audit_record import AuditRecord, faults_of
from lading.core.audit_words import told
from lading.keyfile import write_key
from lading_protocol.economics import AuditRates
from lading_protocol.eip712 import unpack
from lading_protocol.ids import from_hex, to_hex
from lading_protocol.lots import secret_leaf, wants_second
from lading_protocol.receipts import Receipt
from unit.coordinator.conftest import Play
from unit.coordinator.host import Habits
from unit.coordinator.world import World


async def chat(world: World, api_key: str) -> str:
    answer = await world.chat(api_key, max_tokens=64)
    assert answer.status == 200
    job: str = answer.json["lading"]["job"]
    return job


async def record(world: World, job: str) -> AuditRecord:
    answer = await world.ask("GET", f"/lading/v1/audits/{job}")
    assert answer.status == 200, answer.json
    return msgspec.json.decode(json.dumps(answer.json), type=AuditRecord)


async def until(world: World, job: str, *states: str) -> AuditRecord:
    for _ in range(200):
        found = await record(world, job)
        if all(one.state in states for one in found.attempts):
            return found
        await asyncio.sleep(1)
    raise AssertionError(found)


def words(found: AuditRecord, world: World) -> str:
    return "\n".join(told(found, world.clock()))


def test_a_record_follows_from_receipt_root_randomness_and_stakes(play: Play, tmp_path: Path) -> None:
    kept: list[bytes] = []

    async def story(world: World) -> None:
        await world.host("host", Habits(price_out=1))
        for label in ("a", "b", "c"):
            await world.host(label)
        api_key = await world.session()
        job = await chat(world, api_key)
        first = await record(world, job)
        assert first.attempts[0].state == "waiting"
        assert "waits to be anchored" in words(first, world)
        found = await until(world, job, "done")
        assert faults_of(found, world.record.court_domain) == []
        (attempt,) = found.attempts
        assert attempt.verdict == "honest"
        assert attempt.why == "rate"
        assert attempt.round is not None
        assert "HONEST" in words(found, world)
        assert "drawn by stake out of 3" in words(found, world)
        secret = from_hex(attempt.round.secret, 32)
        assert secret_leaf(secret) in world.coordinator.records.tree(attempt.round.n)
        text = json.dumps((await world.ask("GET", f"/lading/v1/audits/{job}")).json)
        assert "tell me a story" not in text
        kept.append(text.encode())
        assert (await world.ask("GET", f"/lading/v1/audits/{'0x' + '00' * 32}")).status == 404

    play(story)
    (body,) = kept
    _tampered(body)
    path = tmp_path / "record.json"
    path.write_bytes(body)
    assert main(["audit", "show", str(path), "--home", str(tmp_path)]) == 0
    path.write_bytes(body.replace(b'"tokens": 12', b'"tokens": 11'))
    assert main(["audit", "show", str(path), "--home", str(tmp_path)]) != 0
    _survives(body)


def _tampered(body: bytes) -> None:
    """What a coordinator would change to hide something is noticed."""
    whole: dict[str, Any] = json.loads(body)
    attempt = whole["attempts"][0]
    round_, look = attempt["round"], attempt["looks"][0]
    others = [who for who in look["pool"] if who != look["auditor"]]
    changes: list[tuple[dict[str, Any], str, Any]] = [
        (whole, "job", "0x" + "11" * 32),
        (whole, "chain_id", 5),
        (whole, "court", "0x" + "11" * 20),
        (whole, "agent", "0x" + "11" * 32),
        (attempt, "host", "0x" + "11" * 20),
        (attempt, "tokens", attempt["tokens"] + 1),
        (attempt, "leaf", "0x" + "11" * 32),
        (attempt, "rate_ppm", 1),
        (round_, "root", "0x" + "11" * 32),
        (round_, "index", round_["index"] ^ 1),
        (round_, "path", []),
        (look, "auditor", others[0]),
        (look, "auditor", "no address"),
        (look, "pool", {who: "1" if who == look["auditor"] else "9" * 30 for who in look["pool"]}),
    ]
    for tree, name, value in changes:
        before, tree[name] = tree[name], value
        assert faults_of(msgspec.json.decode(json.dumps(whole), type=AuditRecord)), (name, value)
        tree[name] = before
    assert faults_of(msgspec.json.decode(json.dumps(whole), type=AuditRecord)) == []
    noticed = []
    for byte in range(20):  # other randomness names the same auditor now and then
        round_["value"] = "0x" + f"{byte:02x}" * 32
        noticed.append(bool(faults_of(msgspec.json.decode(json.dumps(whole), type=AuditRecord))))
    assert sum(noticed) > 5

    _survives(body)


JUNK = [
    None,
    "",
    "0x",
    "0xzz",
    "0x" + "11" * 32,
    "\x1b[2J",
    -1,
    0,
    2**31,
    2**63,
    10**400,
    1e308,
    [],
    {},
    [{}],
    "9" * 4097,
]


def _survives(body: bytes) -> None:
    """Any value in any place is refused, called a fault, or shown: nothing a coordinator writes stops the reader."""

    def places(tree: Any) -> list[tuple[Any, Any]]:
        keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else []
        return [(tree, name) for name in keys] + [place for name in keys for place in places(tree[name])]

    whole = json.loads(body)
    decoded = 0
    for tree, name in places(whole):
        before = tree[name]
        for junk in JUNK:
            tree[name] = junk
            try:
                found = msgspec.json.decode(json.dumps(whole), type=AuditRecord)
            except msgspec.MsgspecError:
                continue
            decoded += 1
            faults_of(found)
            told(found, 0.0)
        tree[name] = before
    assert decoded > 50


def test_a_proven_cheat_is_explained_up_to_the_court(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("cheat", Habits(price_out=1, swaps=True))
        for label in ("a", "b", "c"):
            await world.host(label)
        job = await chat(world, await world.session())
        found = await until(world, job, "disputed")
        assert faults_of(found, world.record.court_domain) == []
        text = words(found, world)
        assert "before the audit court" in text
        assert text.count("finds it guilty") == 2
        (attempt,) = found.attempts
        assert attempt.court is not None
        assert attempt.court.phase in ("drawing", "voting")
        for _ in range(30):
            text = words(await record(world, job), world)
            if "commits by" in text:
                return
            await asyncio.sleep(1)
        raise AssertionError(text)

    play(story)


def test_a_payer_orders_an_audit_of_its_own_job_and_of_no_other(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("host", Habits(price_out=1))
        for label in ("a", "b"):
            await world.host(label)
        mine, other = await world.session(), await world.session(deposit=0)
        job = await chat(world, mine)
        found = await until(world, job, "passed")
        assert "the randomness did not pick it" in words(found, world)
        refused = await world.ask("POST", "/lading/v1/audits", {"job": job}, other)
        assert (refused.status, refused.json["error"]["code"]) == (404, "unknown_job")
        assert (await world.ask("POST", "/lading/v1/audits", {"job": job})).status == 401
        for body in ({"job": "0x00"}, {}, {"job": job, "more": 1}, "x"):
            assert (await world.ask("POST", "/lading/v1/audits", body, mine)).status == 400
        first = await world.ask("POST", "/lading/v1/audits", {"job": job}, mine)
        again = await world.ask("POST", "/lading/v1/audits", {"job": job}, mine)
        assert (first.status, again.status) == (202, 202)
        assert first.json == again.json == {"job": job, "receipts": first.json["receipts"], "price_wei": "0", "left": 9}
        assert (await record(world, job)).attempts[0].state == "ordered"
        found = await until(world, job, "done")
        assert faults_of(found, world.record.court_domain) == []
        assert found.attempts[0].why == "bought"
        assert "ordered it" in words(found, world)
        codes = []
        for _ in range(10):
            more = await chat(world, mine)
            answer = await world.ask("POST", "/lading/v1/audits", {"job": more}, mine)
            codes.append(answer.status)
        assert codes == [202] * 9 + [429]

    play(story, audit_rate=0.0, rates=AuditRates(new_ppm=0, floor_ppm=0))


def test_a_coordinator_that_does_not_audit_takes_no_order(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("host")
        api_key = await world.session()
        answer = await world.ask("POST", "/lading/v1/audits", {"job": await chat(world, api_key)}, api_key)
        assert (answer.status, answer.json["error"]["code"]) == (503, "no_audits")

    play(story, audits=False)


def test_a_canary_looks_like_any_receipt_until_it_is_told(play: Play, tmp_path: Path) -> None:
    write_key(tmp_path / "canary key", key("canary"))

    async def story(world: World) -> None:
        await world.host("server", Habits(price_out=1, length=40, audits=False))
        await world.host("canary", Habits(length=40, audits=False))
        api_key = await world.session()
        job = await chat(world, api_key)
        await asyncio.sleep(15)  # nobody has time to audit
        listed = (await world.ask("GET", "/lading/v1/audits")).json["audits"]
        assert len(listed) == 2
        assert {one["state"] for one in listed} == {"pending"}
        (canary,) = [one for one in listed if one["host"] == to_hex(key("canary").address)]
        (real,) = [one for one in listed if one["job"] == job]
        assert canary.keys() == real.keys()
        for path in ("jobs", "audits", "receipts"):
            trees = [(await world.ask("GET", f"/lading/v1/{path}/{one['job']}")).json for one in (canary, real)]
            assert _form(trees[0]) == _form(trees[1])
        assert _took(await record(world, canary["job"])) == _took(await record(world, real["job"]))
        found = await record(world, canary["job"])
        assert faults_of(found, world.record.court_domain) == []
        assert found.attempts[0].why == "rate"
        for label in ("a", "b"):
            await world.host(label)
        found = await until(world, canary["job"], "canary")
        assert "reverse order" in words(found, world)
        assert (await until(world, job, "done")).attempts[0].verdict == "honest"
        assert world.coordinator.records.disputes() == []

    rates = AuditRates(canary_ppm=1_000_000)
    play(story, audit_canary_key=str(tmp_path / "canary key"), rates=rates)


def _took(shown: AuditRecord) -> int:
    """Milliseconds from what its id tells to its receipt."""
    value = unpack(Receipt, bytes.fromhex(shown.attempts[0].receipt[2:])).value
    return 1000 * value.issued_at - int.from_bytes(value.job[:6], "big")


def _form(tree: Any) -> Any:
    """The shape of a tree: which keys, and which kinds of values."""
    if isinstance(tree, dict):
        return {name if not name.startswith("0x") else "0x": _form(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_form(tree[0])] if tree else []
    return type(tree).__name__


def test_two_final_receipts_bar_their_host_here_also_after_a_restart(play: Play) -> None:
    async def story(world: World) -> None:
        liar = await world.host("liar", Habits(price_out=1))
        await world.host("other")
        api_key = await world.session()
        job = await chat(world, api_key)
        (text,) = (await world.ask("GET", f"/lading/v1/receipts/{job}")).json["receipts"]
        signed = unpack(Receipt, bytes.fromhex(text[2:]))
        value = msgspec.structs.replace(signed.value, output_tokens=signed.value.output_tokens - 1)
        other = to_hex(value.sign(world.record.court_domain, liar.key).pack())
        forged = to_hex(value.sign(world.record.court_domain, key("enemy")).pack())
        for pair in ([text, text], [text, forged], [text, "zz"], [text, "0x"], [text], [text, other, other]):
            assert (await world.ask("POST", "/lading/v1/twins", {"receipts": pair})).status == 400
        assert not world.coordinator.directory.host(liar.key.address).barred
        told_ = await world.ask("POST", "/lading/v1/twins", {"receipts": [text, other]})
        assert told_.status == 201
        assert told_.json["host"] == to_hex(liar.key.address)
        await asyncio.sleep(3)
        assert "two different final receipts" in world.coordinator.directory.host(liar.key.address).barred
        assert world.coordinator.conduct.bar(liar.key.address), "it is on disk"
        before = len(liar.served)
        await chat(world, api_key)
        assert len(liar.served) == before
        assert len((await world.ask("GET", "/lading/v1/audits")).json["twins"]) == 1

    play(story)


@pytest.mark.parametrize("second", [False, True])
def test_the_secret_that_is_told_shows_who_had_to_be_looked_at_twice(play: Play, second: bool) -> None:
    async def story(world: World) -> None:
        await world.host("host", Habits(price_out=1))
        for label in ("a", "b", "c"):
            await world.host(label)
        job = await chat(world, await world.session())
        found = await until(world, job, "done")
        (attempt,) = found.attempts
        assert attempt.round is not None
        audit = world.coordinator.records.audit(from_hex(attempt.leaf, 32))
        assert audit is not None
        secret = from_hex(attempt.round.secret, 32)
        assert wants_second(secret, audit.randomness + audit.leaf, 1_000_000 * second) is second
        assert len(attempt.looks) == 1 + second

    play(story, rates=AuditRates(reaudit_ppm=1_000_000 * second))
