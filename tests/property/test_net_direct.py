"""The direct link under any cutting of its bytes, any order of use, and any bytes of a hostile peer."""

from __future__ import annotations

import asyncio
import os
from struct import pack
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from lading_net import protobuf
from lading_net.clock import run_virtual
from lading_net.direct.multistream import Dialler, Listener, proposal
from lading_net.direct.noise import Credentials, Opener, Sealer, check_payload
from lading_net.direct.upgrade import Upgrade
from lading_net.direct.yamux import Dropped, Ended, Event, Flow, Limits, Opened, Received, Session
from lading_net.errors import BadEndpoint, HandshakeFailed, NetError
from lading_net.peer import Endpoint, PeerId, base58_decode, base58_encode
from lading_protocol.keys import PrivateKey
from unit.net.wire import ONE, TWO, Wire, upgrade_pair

FEW = settings(max_examples=40, deadline=None)
MANY = settings(max_examples=200, deadline=None)
STATIC = X25519PrivateKey.from_private_bytes(bytes(range(32)))
cuts = st.lists(st.integers(1, 70_000), max_size=12)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    parts = []
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]
    return [part for part in [*parts, data] if part]


# -- numbers and names ------------------------------------------------------------------------------------------------


@MANY
@given(st.binary(max_size=60))
def test_base58_round_trips(data: bytes) -> None:
    assert base58_decode(base58_encode(data)) == data


@MANY
@given(st.integers(0, 2**35 - 1), st.binary(max_size=5))
def test_numbers_round_trip(value: int, rest: bytes) -> None:
    encoded = protobuf.encode_number(value)
    assert protobuf.decode_number(encoded + rest, 0) == (value, len(encoded))


@MANY
@given(st.binary(max_size=80))
def test_any_bytes_are_fields_or_a_value_error(data: bytes) -> None:
    try:
        fields = protobuf.decode_fields(data)
    except ValueError:
        return
    assert sum(len(value) for values in fields.values() for value in values) <= len(data)


@FEW
@given(st.binary(min_size=32, max_size=32).filter(lambda data: 0 < int.from_bytes(data, "big") < 2**255))
def test_a_peer_id_names_the_address_of_its_key(secret: bytes) -> None:
    key = PrivateKey(secret)
    assert PeerId.from_text(str(PeerId.from_public_key(key.public_key))).address == key.address


@MANY
@given(st.text(max_size=60) | st.lists(st.sampled_from(["ip4", "tcp", "p2p", "1.2.3.4", "99", ""])).map("/".join))
def test_any_text_is_an_endpoint_or_refused(text: str) -> None:
    try:
        endpoint = Endpoint.parse(text)
    except BadEndpoint:
        return
    assert Endpoint.parse(str(endpoint)) == endpoint


# -- the layers, one by one -------------------------------------------------------------------------------------------


@FEW
@given(st.lists(st.integers(0, 65_519), max_size=6), cuts)
def test_sealed_messages_survive_any_cutting(sizes: list[int], cutting: list[int]) -> None:
    sealer, opener = Sealer(bytes(32)), Opener(bytes(32))
    sent = [bytes([index]) * size for index, size in enumerate(sizes)]
    wire = b"".join(b"".join(sealer.seal(message)) for message in sent)
    assert [message for part in cut(wire, cutting) for message in opener.receive(part)] == sent


@MANY
@given(st.lists(st.binary(max_size=300), max_size=5), st.booleans())
def test_multistream_takes_anything_or_refuses(parts: list[bytes], greeted: bool) -> None:
    sides: list[Dialler | Listener] = [Dialler("/lading/job/1"), Listener("/lading/job/1".__eq__)]
    for side in sides:
        try:
            if greeted:
                side.receive(proposal("/lading/job/1")[:20])
            for part in parts:
                side.receive(part)
        except NetError:
            pass


@MANY
@given(st.binary(max_size=200))
def test_any_proof_of_identity_is_refused(payload: bytes) -> None:
    try:
        check_payload(payload, bytes(32))
    except HandshakeFailed:
        return
    raise AssertionError("accepted")


@FEW
@given(st.integers(0, 2), st.integers(0, 600), st.integers(1, 255), st.integers(1, 400))
def test_an_altered_handshake_never_yields_another_peer(side: int, at: int, flip: int, chunk: int) -> None:
    first, second = Upgrade(Credentials(ONE, STATIC), True, TWO.address), Upgrade(Credentials(TWO, STATIC), False)
    altered = [first, second][side] if side < 2 else None
    if altered is not None:
        receive, seen = altered.receive, 0

        def tampered(data: bytes) -> bytes:
            nonlocal seen
            here = at - seen
            seen += len(data)
            if 0 <= here < len(data):
                data = data[:here] + bytes([data[here] ^ flip]) + data[here + 1 :]
            return receive(data)

        altered.receive = tampered  # type: ignore[method-assign]
    try:
        upgrade_pair(first, second, chunk)
    except NetError:
        assert altered is not None
        return
    for one, other in ((first, TWO), (second, ONE)):
        assert one.remote is None or one.remote.address == other.address
    if altered is None:
        assert first.remote is not None


@MANY
@given(st.binary(max_size=400), st.booleans())
def test_a_handshake_with_noise_in_the_other_sense_fails_cleanly(data: bytes, dialled: bool) -> None:
    side = Upgrade(Credentials(ONE, STATIC), dialled)
    side.start()
    try:
        side.receive(proposal("/noise") + data)
    except NetError:
        return
    assert side.remote is None


# -- yamux: whatever two honest ends do -------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(["open", "send", "send", "send", "finish", "reset", "move", "move", "move", "read", "read"]),
        st.integers(0, 1),
        st.integers(0, 7),
        st.integers(0, 300_000),
    ),
    max_size=60,
)


class Ends:
    """Two sessions, the bytes between them, and a model of what each stream should carry."""

    def __init__(self) -> None:
        limits = Limits(streams=4, unacknowledged=100)
        self.sessions = [Session(True, limits), Session(False, limits)]
        self.wire = [b"", b""]  # towards side 0 and side 1
        self.flows: list[dict[int, Flow]] = [{}, {}]
        self.sent: list[dict[int, bytearray]] = [{}, {}]
        self.got: list[dict[int, bytearray]] = [{}, {}]
        self.ended: list[set[int]] = [set(), set()]
        self.finished: list[set[int]] = [set(), set()]
        self.dropped: set[int] = set()

    def learn(self, side: int, flow: Flow) -> None:
        self.flows[side][flow.number] = flow
        self.sent[side][flow.number] = bytearray()
        self.got[side][flow.number] = bytearray()

    def pick(self, side: int, which: int) -> Flow | None:
        flows = list(self.flows[side].values())
        return flows[which % len(flows)] if flows else None

    def act(self, what: str, side: int, which: int, size: int) -> None:
        session, flow = self.sessions[side], self.pick(side, which)
        if what == "open":
            try:
                self.learn(side, session.open())
            except NetError:
                pass
        elif what == "move":
            self.move(side, size % 70_000 + 64)
        elif flow is None:
            return
        elif what == "send" and not flow.over and not flow.closing:
            data = bytes([which]) * size
            session.send(flow, data)
            self.sent[side][flow.number] += data
        elif what == "finish" and not flow.over:
            session.finish(flow)
            self.finished[side].add(flow.number)
        elif what == "reset":
            session.reset(flow)
            self.dropped.add(flow.number)
        elif what == "read":
            session.consume(flow, min(size, flow.unread))

    def move(self, side: int, size: int) -> None:
        """Takes from one side and lets the other receive some of what is under way."""
        towards = 1 - side
        self.wire[towards] += b"".join(self.sessions[side].take(65_519))
        data, self.wire[towards] = self.wire[towards][:size], self.wire[towards][size:]
        for event in self.sessions[towards].receive(data):
            if isinstance(event, Opened):
                self.learn(towards, event.flow)
            elif isinstance(event, Received):
                assert event.flow.number not in self.ended[towards]
                self.got[towards][event.flow.number] += event.data
            elif isinstance(event, Ended):
                self.ended[towards].add(event.flow.number)
            elif isinstance(event, Dropped):
                assert not event.ours
                self.dropped.add(event.flow.number)

    def settle(self) -> None:
        while any(session.has_output for session in self.sessions) or any(self.wire):
            for side in (0, 1):
                self.move(side, 1 << 20)
            for side in (0, 1):
                for flow in self.flows[side].values():
                    self.sessions[side].consume(flow, flow.unread)


@FEW
@given(steps)
def test_streams_neither_lose_nor_invent_a_byte(script: list[tuple[str, int, int, int]]) -> None:
    ends = Ends()
    for step in script:
        ends.act(*step)
        for side in (0, 1):
            session = ends.sessions[side]
            assert session.unread == sum(flow.unread for flow in session.flows.values())
            assert session.queued == sum(flow.queued for flow in ends.flows[side].values())
            for flow in session.flows.values():
                assert flow.unread + flow.receive_window <= flow.window
    ends.settle()
    for side in (0, 1):
        for number, sent in ends.sent[side].items():
            got = ends.got[1 - side].get(number, bytearray())
            assert sent.startswith(got)
            if number not in ends.dropped:
                assert sent == got
                assert (number in ends.ended[1 - side]) == (number in ends.finished[side])
    done = ends.finished[0] & ends.finished[1] | ends.dropped
    for side in (0, 1):
        assert not done & set(ends.sessions[side].flows)
        assert ends.sessions[side].unacknowledged == 0


# -- yamux: whatever a hostile end does -------------------------------------------------------------------------------


@st.composite
def frames(draw: Any) -> bytes:
    kind, flags = draw(st.sampled_from([0, 0, 0, 1, 1, 2, 3, 9])), draw(st.integers(0, 15))
    number = draw(st.sampled_from([0, 1, 1, 2, 3, 5, 7, 2**32 - 1]))
    body = draw(st.binary(max_size=40)) if kind == 0 else b""
    length = len(body) + draw(st.sampled_from([0, 0, 0, 1, 300_000])) if kind == 0 else draw(st.integers(0, 2**32 - 1))
    return pack(">BBHII", draw(st.sampled_from([0] * 20 + [1])), kind, flags, number, length) + body


hostile = st.lists(frames(), max_size=25).map(b"".join) | st.binary(max_size=200)


@MANY
@given(hostile, cuts)
def test_a_hostile_peer_gets_a_typed_error_and_no_memory(data: bytes, cutting: list[int]) -> None:
    session = Session(False, Limits(streams=3, received=1000))
    held = 0
    try:
        for part in cut(data, [size % 50 + 1 for size in cutting]):
            for event in session.receive(part):
                held += len(event.data) if isinstance(event, Received) else 0
    except NetError:
        pass
    assert len(session.flows) <= 3
    assert session.unread <= 1000
    assert held <= len(data)


busy = st.lists(frames() | st.integers(0, 400).map(lambda n: pack(">BBHII", 0, 1, 1, 2 * n + 1, 0)), max_size=80)


@MANY
@given(busy.map(b"".join), cuts)
def test_turns_change_nothing_but_when_a_peer_is_heard(data: bytes, cutting: list[int]) -> None:
    def plain(events: list[Event]) -> list[tuple[str, int, bytes]]:
        return [
            (type(one).__name__, one.flow.number if hasattr(one, "flow") else 0, getattr(one, "data", b""))
            for one in events
        ]

    patient, hasty = Session(False), Session(False)
    hasty._effort = 1 << 60
    heard: list[Event] = []
    expected: list[Event] = []
    errors: list[str] = []
    for session, into in ((patient, heard), (hasty, expected)):
        try:
            for part in cut(data, [size % 300 + 1 for size in cutting]):
                into += session.receive(part)
            while session.held_up:
                events = session.go_on()
                assert sum(isinstance(one, Opened) for one in events) <= 8
                into += events
        except NetError as error:
            errors.append(error.message)
    assert len(errors) in (0, 2)
    assert len(set(errors)) <= 1
    shorter = min(len(heard), len(expected)) if errors else max(len(heard), len(expected))
    assert plain(heard)[:shorter] == plain(expected)[:shorter]


@FEW
@given(hostile, st.binary(max_size=40))
def test_a_link_survives_or_ends_cleanly_whatever_its_peer_says(data: bytes, after: bytes) -> None:
    async def main() -> None:
        wire = Wire()
        stream = await wire.near.open("/echo")
        wire.far.first_received(data)
        wire.far.first_received(proposal("/echo") + after)
        await asyncio.sleep(100)
        wire.near_pipe.abort()
        try:
            while await stream.read():
                pass
        except NetError:
            pass
        await wire.near.close()
        await wire.far.close()
        assert wire.far.lost

    run_virtual(main())


@FEW
@given(st.binary(max_size=200))
def test_a_link_fed_with_random_ciphertext_ends(data: bytes) -> None:
    async def main() -> None:
        wire = Wire()
        wire.far.data_received(data)
        wire.far.data_received(b"\0\x10" + os.urandom(65_537))
        await asyncio.sleep(1)
        assert wire.far.lost
        assert wire.near.lost

    run_virtual(main())
