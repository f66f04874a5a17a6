"""Public randomness: rounds of two real drand networks hold, and nothing that a hostile address answers does."""

import asyncio
import json
from collections.abc import Callable

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_coordinator.audits.beacons import (
    MAX_ANSWER,
    QUICKNET,
    BeaconFailed,
    Clockwork,
    DrandBeacon,
    LocalBeacon,
    network_of,
    read_round,
)
from lading_coordinator.audits.bls import CHAINED, UNCHAINED_G1, holds
from lading_protocol.audit import beacon
from lading_protocol.transcript import sha256
from unit.coordinator.conftest import Play
from unit.coordinator.world import World

# Round 1000 of quicknet, and round 72785 of the League of Entropy's first network, as they were published.
QUICK = bytes.fromhex(
    "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39"
)
QUICK_VALUE = bytes.fromhex("fe290beca10872ef2fb164d2aa4442de4566183ec51c56ff3cd603d930e54fdd")
FIRST_KEY = bytes.fromhex(
    "868f005eb8e6e4ca0a47c8a77ceaa5309a47978a7c71bc5cce96366b5d7a569937c529eeda66c7293784a9402801af31"
)
FIRST_BEFORE = bytes.fromhex(
    "a609e19a03c2fcc559e8dae14900aaefe517cb55c840f6e69bc8e4f66c8d18e8a609685d9917efbfb0c37f058c2de88f"
    "13d297c7e19e0ab24813079efe57a182554ff054c7638153f9b26a60e7111f71a0ff63d9571704905d3ca6df0b031747"
)
FIRST = bytes.fromhex(
    "82f5d3d2de4db19d40a6980e8aa37842a0e55d1df06bd68bddc8d60002e8e959eb9cfa368b3c1b77d18f02a54fe047b8"
    "0f0989315f83b12a74fd8679c4f12aae86eaf6ab5690b34f1fddd50ee3cc6f6cdf59e95526d5a5d82aaa84fa6f181e42"
)
INFINITY_G1, INFINITY_G2 = bytes([0xC0]) + bytes(47), bytes([0xC0]) + bytes(95)


def test_real_rounds_hold() -> None:
    assert holds(UNCHAINED_G1, QUICKNET.key, 1000, QUICK)
    assert sha256(QUICK) == QUICK_VALUE
    assert holds(CHAINED, FIRST_KEY, 72785, FIRST, FIRST_BEFORE)


def test_a_signature_of_another_round_or_network_does_not_hold() -> None:
    assert not holds(UNCHAINED_G1, QUICKNET.key, 1001, QUICK)
    assert not holds(CHAINED, FIRST_KEY, 72785, FIRST, FIRST_BEFORE[:-1] + b"\x00")


def on_curve_outside_the_subgroup() -> bytes:
    """A compressed point of the curve of G1 that is in no subgroup of prime order."""
    prime = 0x1A0111EA397FE69A4B1BA7B6434BACD764774B84F38512BF6730D2A0F6B0F6241EABFFFEB153FFFFB9FEFFFFFFFFAAAB
    x = next(x for x in range(1, 100) if pow(x**3 + 4, (prime - 1) // 2, prime) == 1)
    return (x | 1 << 383).to_bytes(48, "big")


@pytest.mark.parametrize(
    ("scheme", "key", "signature"),
    [
        (UNCHAINED_G1, QUICKNET.key, INFINITY_G1),
        (UNCHAINED_G1, INFINITY_G2, INFINITY_G1),
        (UNCHAINED_G1, QUICKNET.key, bytes(48)),
        (UNCHAINED_G1, QUICKNET.key, b"\xff" * 48),
        (UNCHAINED_G1, QUICKNET.key, QUICK[:-1]),
        (UNCHAINED_G1, QUICKNET.key, QUICK + b"\x00"),
        (UNCHAINED_G1, QUICKNET.key, on_curve_outside_the_subgroup()),
        (UNCHAINED_G1, bytes(96), QUICK),
        (CHAINED, FIRST_KEY, INFINITY_G2),
        (CHAINED, INFINITY_G1, FIRST),
        (CHAINED, FIRST_KEY, b"\xff" * 96),
        ("a scheme to come", QUICKNET.key, QUICK),
    ],
    ids=range(12),
)
def test_points_that_are_none_do_not_hold(scheme: str, key: bytes, signature: bytes) -> None:
    assert not holds(scheme, key, 1000, signature, b"\x01" * 96)


def test_rounds_outside_the_counter_do_not_hold() -> None:
    for number in (0, -1, 2**63, 2**70):
        assert not holds(UNCHAINED_G1, QUICKNET.key, number, QUICK)


def answer(**changes: object) -> bytes:
    return json.dumps({"round": 1000, "randomness": QUICK_VALUE.hex(), "signature": QUICK.hex()} | changes).encode()


def test_what_is_answered_is_read_with_care() -> None:
    claim = read_round(answer(more="ignored"), 1000)
    assert (claim.round, claim.signature) == (1000, QUICK)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[" * 4000,
        b"null",
        answer(round=1001),
        answer(round="1000"),
        answer(round=2**80),
        answer(signature=""),
        answer(signature="xyz"),
        answer(signature=QUICK.hex() + "00"),
        answer(randomness="00" * 32),
        answer(randomness=3),
        answer(previous_signature="00" * 97),
    ],
    ids=range(13),
)
def test_hostile_answers_are_refused_in_words(body: bytes) -> None:
    with pytest.raises(BeaconFailed, match="1000"):
        read_round(body, 1000)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_claim_or_refused(body: bytes) -> None:
    with pytest.raises(BeaconFailed):
        read_round(body, 1000)


def drand(*replies: Callable[[httpx.Request], httpx.Response]) -> DrandBeacon:
    """A beacon whose addresses give these replies, one each."""

    def handle(request: httpx.Request) -> httpx.Response:
        return replies[int(request.url.host.removeprefix("n"))](request)

    urls = tuple(f"https://n{n}" for n in range(len(replies)))
    return DrandBeacon(QUICKNET, urls, httpx.AsyncClient(transport=httpx.MockTransport(handle)))


def refuse(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def test_the_first_address_that_does_not_lie_is_believed() -> None:
    asked: list[str] = []

    def good(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, content=answer())

    async def story() -> bytes:
        lie = answer(signature=on_curve_outside_the_subgroup().hex(), randomness="")
        made = drand(
            refuse,
            lambda request: httpx.Response(302, headers={"location": "https://elsewhere"}),
            lambda request: httpx.Response(200, content=b" " * (MAX_ANSWER + 1)),
            lambda request: httpx.Response(200, content=lie),
            good,
        )
        try:
            return await made.value(1000)
        finally:
            await made.close()

    assert asyncio.run(story()) == QUICK_VALUE
    assert asked == [f"/{QUICKNET.chain}/public/1000"]


def test_silence_everywhere_is_said() -> None:
    async def story() -> None:
        made = drand(refuse, lambda request: httpx.Response(404))
        with pytest.raises(BeaconFailed, match="round 7"):
            await made.value(7)
        await made.close()

    asyncio.run(story())


@given(st.integers(1, 10**9), st.integers(1, 600), st.floats(0, 1e10))
def test_a_round_is_never_out_before_the_moment_it_was_fixed_for(genesis: int, period: int, moment: float) -> None:
    clock = Clockwork(genesis, period)
    number = clock.round_at(moment)
    assert clock.time_of(number) >= moment or number == 1 == clock.round_at(0)
    assert number == 1 or clock.time_of(number - 1) < moment


def test_a_network_is_read_from_its_own_description() -> None:
    tree = {
        "hash": QUICKNET.chain,
        "public_key": QUICKNET.key.hex(),
        "period": 3,
        "genesis_time": 1692803367,
        "schemeID": UNCHAINED_G1,
        "groupHash": "00",
    }
    assert network_of(json.dumps(tree)) == QUICKNET
    for change in ({"period": 0}, {"public_key": "00"}, {"hash": "zz"}, {"hash": "00"}, {"genesis_time": None}):
        with pytest.raises(BeaconFailed):
            network_of(json.dumps(tree | change))


class Silent(LocalBeacon):
    """A beacon that says nothing before second `speaks_at`."""

    def __init__(self, speaks_at: float) -> None:
        super().__init__(b"secret", Clockwork(0, 3))
        self.speaks_at = speaks_at
        self.now: Callable[[], float] = lambda: 0.0

    async def value(self, number: int) -> bytes:
        if self.now() < self.speaks_at:
            raise BeaconFailed("It is silent.")
        return await super().value(number)


def drawn(world: World) -> tuple[bytes, str] | None:
    rounds = world.coordinator.records.rounds("drawn")
    return world.coordinator.records.source(rounds[0].n) if rounds else None


async def one_round(world: World, seconds: int) -> None:
    await world.host("one")
    await world.host("two")
    assert (await world.chat(await world.session())).status == 200
    for _ in range(seconds):
        if drawn(world) is not None:
            return
        await asyncio.sleep(1)


def test_a_round_waits_for_its_beacon_and_no_less_than_the_delay(play: Play) -> None:
    async def story(world: World) -> None:
        beginning = world.clock()
        await one_round(world, 100)
        (round_,) = world.coordinator.records.rounds("drawn")
        waits = world.coordinator.records.appointment(round_.n)
        block = await world.chain.block(round_.block)
        assert block is not None
        assert block.timestamp + 30 <= waits.due <= block.timestamp + 33
        assert world.clock() >= waits.due > beginning
        value, source = world.coordinator.records.source(round_.n)
        assert source == f"local round {waits.round}"
        (audit,) = world.coordinator.records.audits()
        assert audit.randomness == beacon(round_.root, value)

    play(story, audit_beacon="local")


@pytest.mark.parametrize("speaks", [60.0, 1e12], ids=["late", "never"])
def test_a_silent_beacon_is_replaced_by_blocks_that_come_after_its_last_chance(play: Play, speaks: float) -> None:
    made = Silent(speaks)

    async def story(world: World) -> None:
        made.now, start = world.clock, world.clock()
        made.speaks_at = start + speaks
        await one_round(world, 400)
        (round_,) = world.coordinator.records.rounds("drawn")
        waits = world.coordinator.records.appointment(round_.n)
        value, source = world.coordinator.records.source(round_.n)
        if speaks < 1e6:
            assert source == f"local round {waits.round}"
            return
        first, last = (int(word) for word in source.removeprefix("blocks ").split(" to "))
        blocks = [await world.chain.block(number) for number in range(first - 2, last + 1)]
        found = [block for block in blocks if block is not None]
        assert last - first == 3
        assert found[0].timestamp < waits.due + 200 <= found[1].timestamp < found[2].timestamp
        assert value == b"".join(block.hash for block in found[2:])

    play(story, beacon=made, audit_beacon_grace=200.0, audit_beacon_blocks=4)


def test_an_appointment_outlives_a_change_of_the_settings(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("one")
        assert (await world.chat(await world.session())).status == 200
        await asyncio.sleep(10)
        (round_,) = world.coordinator.records.rounds("anchored")
        appointment = world.coordinator.records.appointment(round_.n)
        world.coordinator.rounds._sources = msgspec.structs.replace(world.coordinator.rounds._sources, beacon=None)
        await asyncio.sleep(60)
        assert drawn(world) is None, "blocks serve only after the last chance of what was fixed"
        assert world.coordinator.records.appointment(round_.n) == appointment
        await asyncio.sleep(200)
        found = drawn(world)
        assert found is not None
        assert found[1].startswith("blocks")

    play(story, audit_beacon="local", audit_beacon_grace=100.0)
