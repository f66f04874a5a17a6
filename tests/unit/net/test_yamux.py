"""yamux as a list of frames in and events out."""

from struct import pack

import pytest

from lading_net.direct.yamux import (
    INITIAL_WINDOW,
    Dropped,
    Ended,
    Event,
    GoneAway,
    Limits,
    Opened,
    Received,
    Session,
)
from lading_net.errors import BufferFull, LinkClosed, ProtocolViolation, TooManyStreams

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


def frame(kind: int, flags: int, number: int, length: int, body: bytes = b"") -> bytes:
    return pack(">BBHII", 0, kind, flags, number, length) + body


def data(number: int, body: bytes, flags: int = 0) -> bytes:
    return frame(DATA, flags, number, len(body), body)


def out(session: Session, room: int = 65_519) -> bytes:
    return b"".join(session.take(room))


def everything(session: Session) -> bytes:
    parts = []
    while part := out(session):
        parts.append(part)
    return b"".join(parts)


def listener(**limits: int) -> Session:
    return Session(dialled=False, limits=Limits(**limits))


def accept(session: Session, number: int = 1) -> Opened:
    (event,) = session.receive(frame(WINDOW, SYN, number, 0))
    assert isinstance(event, Opened)
    return event


def test_the_first_write_opens_the_stream_in_the_same_frame() -> None:
    session = Session(dialled=True)
    session.send(session.open(), b"hello")
    session.send(session.open(), b"you")
    assert out(session) == data(1, b"hello", SYN) + data(3, b"you", SYN)
    assert out(session) == b""


def test_what_was_written_in_pieces_leaves_as_one_frame() -> None:
    session = Session(dialled=True)
    flow = session.open()
    for _ in range(3):
        session.send(flow, b"ab")
    session.finish(flow)
    assert out(session) == data(1, b"ababab", SYN) + frame(WINDOW, FIN, 1, 0)


def test_an_accepted_stream_is_acknowledged_with_the_first_answer() -> None:
    session = listener()
    events = session.receive(data(1, b"hello", SYN | FIN))
    flow = events[0].flow  # type: ignore[union-attr]
    assert events == [Opened(flow), Received(flow, b"hello"), Ended(flow)]
    session.send(flow, b"hi")
    assert out(session) == data(1, b"hi", ACK)


def test_an_accepted_stream_is_acknowledged_even_when_nothing_is_said() -> None:
    session = listener()
    accept(session)
    assert out(session) == frame(WINDOW, ACK, 1, 0)


def test_the_sender_stops_at_the_window_and_goes_on_when_granted() -> None:
    session = Session(dialled=True)
    flow = session.open()
    session.send(flow, bytes(INITIAL_WINDOW + 10))
    sent = everything(session)
    frames = -(-INITIAL_WINDOW // (65_519 - 12))
    assert len(sent) == INITIAL_WINDOW + 12 * frames
    assert flow.queued == session.queued == 10
    assert not session.has_output
    assert session.receive(frame(WINDOW, ACK, 1, 4)) == []
    assert out(session) == data(1, bytes(4))
    session.receive(frame(WINDOW, 0, 1, 100))
    assert out(session) == data(1, bytes(6))


def test_the_end_waits_for_the_window_too() -> None:
    session = Session(dialled=True)
    flow = session.open()
    session.send(flow, bytes(INITIAL_WINDOW + 1))
    session.finish(flow)
    everything(session)
    session.receive(frame(WINDOW, 0, 1, 50))
    assert everything(session) == data(1, b"\0") + frame(WINDOW, FIN, 1, 0)


def test_a_finished_stream_still_receives() -> None:
    session = Session(dialled=True)
    flow = session.open()
    session.finish(flow)
    assert out(session) == frame(WINDOW, SYN, 1, 0) + frame(WINDOW, FIN, 1, 0)
    session.send(flow, b"ignored after the end")
    assert out(session) == b""
    assert session.receive(data(1, b"late", ACK) + data(1, b"", FIN)) == [Received(flow, b"late"), Ended(flow)]
    assert session.flows == {1: flow}
    session.consume(flow, 4)
    assert session.flows == {}


def test_window_updates_are_rare_and_grow_while_the_reader_keeps_up() -> None:
    session = listener(window=1024 * 1024)
    flow = accept(session).flow
    out(session)
    session.receive(data(1, bytes(INITIAL_WINDOW)))
    session.consume(flow, INITIAL_WINDOW // 2 - 1)
    assert out(session) == b""
    session.consume(flow, 1)  # half is read, half is waiting: the window is refilled, not widened
    assert out(session) == frame(WINDOW, 0, 1, INITIAL_WINDOW // 2)
    session.consume(flow, INITIAL_WINDOW // 2)  # all is read: twice as much may be under way
    assert out(session) == frame(WINDOW, 0, 1, INITIAL_WINDOW // 2 + INITIAL_WINDOW)
    for _ in range(5):
        granted = flow.receive_window
        session.receive(data(1, bytes(granted)))
        session.consume(flow, granted)
    assert flow.window == flow.receive_window == 1024 * 1024


def test_streams_take_turns() -> None:
    session = Session(dialled=True)
    flows = [session.open() for _ in range(3)]
    for flow in flows:
        session.send(flow, bytes(2000))
    order = [int.from_bytes(out(session, 1012)[4:8], "big") for _ in range(6)]
    assert order == [1, 3, 5, 1, 3, 5]


def test_control_frames_overtake_queued_data() -> None:
    session = Session(dialled=True)
    session.send(session.open(), bytes(100_000))
    session.ping(7)
    assert out(session, 200)[:12] == frame(PING, SYN, 0, 7)


def test_a_ping_is_answered_with_its_value() -> None:
    session = listener()
    assert session.receive(frame(PING, SYN, 0, 99) + frame(PING, ACK, 0, 5)) == []
    assert out(session) == frame(PING, ACK, 0, 99)


def test_a_reset_drops_what_is_queued_and_later_frames_pass_unseen() -> None:
    session = listener()
    flow = accept(session).flow
    session.send(flow, bytes(1000))
    session.reset(flow)
    assert out(session) == frame(WINDOW, RST, 1, 0)
    assert session.queued == 0
    assert session.receive(data(1, b"on its way") + frame(WINDOW, 0, 1, 9) + frame(WINDOW, FIN, 1, 0)) == []
    assert session.flows == {}


def test_a_stream_reset_before_it_left_was_never_there() -> None:
    session = Session(dialled=True)
    session.reset(session.open())
    assert (out(session), session.flows, session.unacknowledged) == (b"", {}, 0)


@pytest.mark.parametrize("kind", [DATA, WINDOW])
def test_the_peers_reset_is_told_once(kind: int) -> None:
    session = listener()
    flow = accept(session).flow
    assert session.receive(frame(kind, RST, 1, 0)) == [Dropped(flow)]
    assert session.receive(frame(kind, RST, 1, 0)) == []


def test_a_reset_after_the_end_is_still_a_reset() -> None:
    session = listener()
    flow = accept(session).flow
    assert session.receive(frame(DATA, FIN, 1, 0) + frame(DATA, RST, 1, 0)) == [Ended(flow), Dropped(flow)]


def test_no_stream_is_opened_after_go_away() -> None:
    session = Session(dialled=True)
    assert session.receive(frame(GO_AWAY, 0, 0, 0)) == [GoneAway(0)]
    with pytest.raises(LinkClosed):
        session.open()


def test_our_own_streams_are_limited_and_come_back() -> None:
    session = Session(dialled=True, limits=Limits(streams=2))
    flows = [session.open(), session.open()]
    with pytest.raises(TooManyStreams):
        session.open()
    session.reset(flows[0])
    assert session.open().number == 5


def test_the_peers_streams_beyond_the_limit_are_reset_without_an_event() -> None:
    session = listener(streams=1)
    accept(session)
    assert session.receive(data(3, b"too many", SYN)) == []
    assert frame(WINDOW, RST, 3, 0) in everything(session)
    assert list(session.flows) == [1]


def test_unanswered_streams_are_counted() -> None:
    session = Session(dialled=True, limits=Limits(unacknowledged=2))
    session.open()
    assert [session.may_open] == [True]
    session.open()
    everything(session)
    assert [session.may_open] == [False]
    session.receive(frame(WINDOW, ACK, 1, 0) + data(1, b"x"))
    assert session.unacknowledged == 1
    session.receive(frame(WINDOW, RST, 3, 0))
    assert session.unacknowledged == 0


def test_a_link_that_nobody_reads_loses_its_fullest_stream() -> None:
    session = listener(received=100_000)
    small, large = accept(session, 1).flow, accept(session, 3).flow
    assert session.receive(data(1, bytes(30_000))) == [Received(small, bytes(30_000))]
    events: list[Event] = session.receive(data(3, bytes(70_001)))
    assert events[-1] == Dropped(large, ours=True)
    assert session.unread == 30_000
    assert frame(WINDOW, RST, 3, 0) in everything(session)


def test_a_writer_who_never_drains_is_stopped() -> None:
    session = Session(dialled=True, limits=Limits(queued_stream=1000, queued=1500))
    first, second = session.open(), session.open()
    session.send(first, bytes(1000))
    with pytest.raises(BufferFull):
        session.send(first, b"x")
    session.send(second, bytes(500))
    with pytest.raises(BufferFull):
        session.send(second, b"x")


def test_a_peer_that_asks_and_never_reads_is_given_up() -> None:
    session = listener()
    session.receive(frame(PING, SYN, 0, 1) * 70_000)
    for _ in range(512):
        session.go_on()
    with pytest.raises(ProtocolViolation, match="does not read"):
        session.go_on()


@pytest.mark.parametrize(
    ("one", "in_a_turn"),
    [
        (b"", 8),
        (frame(PING, SYN, 0, 7), 128),
        (frame(WINDOW, 0, 1, 1), 128),
        (frame(WINDOW, RST, 99, 0), 128),
        (data(1, b"x"), 128),
        (data(77, b""), 128),
        (data(1, bytes(40)), 2048),
    ],
    ids=["streams", "pings", "small grants", "resets of nothing", "single bytes", "empty frames", "words"],
)
def test_a_flood_is_looked_at_in_turns(one: bytes, in_a_turn: int) -> None:
    session = listener()
    accept(session)
    amount = 1000 if in_a_turn < 1000 else 5000
    flood = one * amount or b"".join(frame(WINDOW, SYN, number, 0) for number in range(3, 3 + 2 * amount, 2))
    session.receive(flood)
    turns = 1
    while session.held_up:
        before = session.held
        session.go_on()
        assert before - session.held <= in_a_turn * len(flood) // amount
        turns += 1
    assert session.held == 0
    assert turns >= amount // in_a_turn


def test_who_comes_after_a_rest_has_a_whole_turn_and_what_was_held_up_waits_for_its_own() -> None:
    session = listener()
    for number in range(1, 81, 2):
        session.rest()
        assert len(session.receive(frame(WINDOW, SYN, number, 0))) == 1
    assert not session.held_up
    session.receive(b"".join(frame(WINDOW, SYN, number, 0) for number in range(81, 101, 2)))
    held = session.held
    assert session.held_up
    session.rest()
    assert session.receive(frame(PING, SYN, 0, 1)) == []
    assert session.held == held + 12


def test_nothing_is_made_for_what_the_owner_does_not_admit() -> None:
    asked: list[bool] = []

    def admits(stream: bool) -> bool:
        asked.append(stream)
        return len(asked) == 1

    session = Session(False, admits=admits)
    accept(session)
    assert session.receive(data(3, b"refused", SYN) + frame(PING, SYN, 0, 9) + data(1, b"served")) != []
    assert asked == [True, True, False]
    assert list(session.flows) == [1]
    assert everything(session) == frame(WINDOW, RST, 3, 0) + frame(WINDOW, ACK, 1, 0)


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x01" + bytes(11),
        frame(4, 0, 0, 0),
        frame(PING, SYN, 1, 0),
        frame(GO_AWAY, 0, 5, 0),
        frame(WINDOW, SYN, 0, 0),
        frame(WINDOW, SYN, 2, 0),
        frame(WINDOW, SYN, 5, 0) + frame(WINDOW, SYN, 5, 0),
        frame(WINDOW, SYN, 5, 0) + frame(WINDOW, SYN, 3, 0),
        frame(DATA, SYN, 1, INITIAL_WINDOW + 1),
        data(1, bytes(INITIAL_WINDOW), SYN) + data(1, b"x"),
        data(1, b"", SYN | FIN) + data(1, b"x"),
        frame(WINDOW, SYN, 1, 0) + frame(WINDOW, 0, 1, 2**32 - 1),
    ],
)
def test_what_the_protocol_forbids_is_a_violation(hostile: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        listener().receive(hostile)


def test_bulk_leaves_only_when_nobody_else_has_anything_to_say() -> None:
    session = Session(dialled=True)
    bulk, other, urgent = session.open(), session.open(), session.open()
    bulk.bulk = other.bulk = True
    everything(session)
    for flow in (bulk, other):
        session.send(flow, bytes(200_000))
    assert out(session, 1000)[:12] == frame(DATA, 0, 1, 988)
    session.send(urgent, b"a token")
    taken = out(session, 1000)
    assert taken.startswith(data(5, b"a token"))
    assert taken[19:31] == frame(DATA, 0, 3, 1000 - 19 - 12)  # what room is left is used, in turns
    assert out(session, 1000)[:12] == frame(DATA, 0, 1, 988)
    assert session.has_output
