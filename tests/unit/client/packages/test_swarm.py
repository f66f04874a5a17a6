"""The scheduler's habits one by one; that it never loses a chunk is a property test."""

from lading.core.bucket import Bucket
from lading.core.swarm import Rules, Swarm, Wanted

MIB = 1 << 20
ONE, TWO = b"1" * 32, b"2" * 32


def swarm(count: int, **rules: float) -> Swarm:
    return Swarm([Wanted(ONE, MIB)] * count, Rules(**rules))  # type: ignore[arg-type]


def deliver(one: Swarm, peer: str, number: int, now: float) -> bool:
    one.heard(peer, now)
    one.sent(peer, now)
    return one.accept(number)


def test_chunks_are_asked_in_order_and_some_ahead() -> None:
    one = swarm(10, least=3)
    one.join("a", 0.0)
    assert one.ask("a", 0.0) == [0, 1, 2]
    assert one.ask("a", 0.0) == []
    assert deliver(one, "a", 0, 1.0)
    assert one.ask("a", 1.0) == [3]


def test_a_fast_peer_is_asked_for_more_ahead_than_a_slow_one() -> None:
    one = swarm(100, least=2, most=8, ahead=0.5)
    one.join("fast", 0.0)
    one.join("slow", 0.0)
    fast, slow = one.ask("fast", 0.0), one.ask("slow", 0.0)
    now = 0.0
    for _ in range(8):
        now += 0.05
        deliver(one, "fast", fast.pop(0), now)
        fast += one.ask("fast", now)
    deliver(one, "slow", slow.pop(0), 2.0)
    slow += one.ask("slow", 2.0)
    assert len(fast) == 8
    assert len(slow) == 2


def test_what_a_dead_peer_owed_goes_to_the_others_first() -> None:
    one = swarm(20, least=3)
    one.join("a", 0.0)
    one.join("b", 0.0)
    assert one.ask("a", 0.0) == [0, 1, 2]
    assert one.ask("b", 0.0) == [3, 4, 5]
    one.leave("a", "the link went away")
    assert deliver(one, "b", 3, 1.0)
    assert one.ask("b", 1.0) == [0]
    assert one.reasons == {"a": "the link went away"}


def test_at_the_end_the_fast_peer_asks_for_what_a_slow_one_owes() -> None:
    one = swarm(4, least=2)
    one.join("slow", 0.0)
    one.join("fast", 0.0)
    assert one.ask("slow", 0.0) == [0, 1]
    assert one.ask("fast", 0.0) == [2, 3]
    assert deliver(one, "fast", 2, 0.1)
    assert deliver(one, "fast", 3, 0.2)
    assert one.ask("fast", 3.0) == [1]  # the one that would come last
    assert deliver(one, "fast", 1, 3.1)
    assert one.ask("fast", 3.1) == [0]
    assert deliver(one, "fast", 0, 3.2)
    assert one.left == 0
    assert not deliver(one, "slow", 0, 9.0)  # too late, and not counted twice


def test_nobody_doubles_what_another_brings_sooner() -> None:
    one = swarm(2, least=1)
    one.join("a", 0.0)
    one.join("b", 0.0)
    assert one.ask("a", 0.0) == [0]
    assert one.ask("b", 0.0) == [1]
    assert deliver(one, "b", 1, 5.0)  # b needs 5 s for a chunk
    one.sent("a", 5.0)
    assert one.ask("b", 5.0) == []


def test_a_liar_is_named_and_never_asked_again() -> None:
    one = swarm(3)
    one.join("liar", 0.0)
    one.ask("liar", 0.0)
    one.sent("liar", 0.1)
    one.refuse(0, "liar", "it sent a wrong chunk 0")
    assert one.reasons == {"liar": "it sent a wrong chunk 0"}
    assert not one.join("liar", 1.0)
    one.join("honest", 1.0)
    assert one.ask("honest", 1.0) == [0, 1, 2]


def test_a_peer_that_was_lost_may_come_back() -> None:
    one = swarm(3)
    one.join("a", 0.0)
    one.leave("a", "the link went away")
    assert one.join("a", 1.0)


def test_a_peer_that_lacks_a_blob_is_asked_for_the_others() -> None:
    one = Swarm([Wanted(ONE, MIB), Wanted(ONE, MIB), Wanted(TWO, MIB)], Rules(least=1))
    one.join("a", 0.0)
    assert one.ask("a", 0.0) == [0]
    one.absent("a")
    assert one.ask("a", 0.0) == [2]
    assert deliver(one, "a", 2, 0.1)
    assert one.ask("a", 0.1) == []
    assert one.lacks_all("a")


def test_silence_and_endless_dribbling_end() -> None:
    one = swarm(6, silence=10.0, slowest=60.0)
    one.join("silent", 0.0)
    one.join("dribbles", 0.0)
    one.ask("silent", 0.0)
    one.ask("dribbles", 0.0)
    for second in range(1, 62):
        one.heard("dribbles", float(second))
        gone = [late.peer for late in one.tick(float(second))]
        assert gone == {11: ["silent"], 61: ["dribbles"]}.get(second, [])
    assert "for one chunk" in one.reasons["dribbles"]


def test_a_bucket_lets_a_second_of_saved_up_bytes_through_and_then_its_rate() -> None:
    bucket = Bucket(100.0, 0.0)
    assert bucket.take(100, 0.0) == 0.0
    assert bucket.take(50, 0.0) == 0.5
    assert bucket.take(50, 0.0) == 1.0
    assert bucket.take(100, 10.0) == 0.0
    assert Bucket(0.0, 0.0).take(1e12, 0.0) == 0.0
