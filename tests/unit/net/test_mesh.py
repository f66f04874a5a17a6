"""Gossip among many, decided without a network: everybody hears everything once, cheaply, whatever some of them do."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from factories import key
from lading_net.core.mesh import Habits
from lading_net.core.quotas import Rate
from lading_net.core.rpc import Message, Prune, Rpc, sign
from unit.net.village import TOPIC, Village, Villager, said

SEED = 20_261
STRANGER = key("stranger")


def town(count: int = 60, each: int = 5, habits: Habits | None = None) -> tuple[Village, list[Villager]]:
    """Each dials five others by chance, and listens to the topic."""
    village, rng = Village(count, habits), Random(SEED)
    people = list(village.all.values())
    village.subscribe(*people)
    for number, one in enumerate(people):
        for other in rng.sample(people[:number], min(each, number)):
            village.link(one, other)
    return village, people


def pair(habits: Habits | None = None) -> tuple[Village, Villager, Villager]:
    village = Village(2, habits)
    one, other = village.all.values()
    village.subscribe(one, other)
    village.link(one, other)
    return village, one, other


def neighbours(of: Villager, village: Village, count: int, called: str = "neighbour") -> list[Villager]:
    """Strangers who called it, and listen."""
    found = [village.settle(f"{called} {number}") for number in range(count)]
    for one in found:
        village.subscribe(one)
        village.link(one, of)
    return found


def test_everybody_hears_everything_once_and_few_copies_are_made() -> None:
    village, people = town()
    village.tick(5)
    texts = [b"%d" % number for number in range(20)]
    for one, text in zip(people, texts, strict=False):
        village.publish(one, text)
    for number, one in enumerate(people):
        assert sorted(one.heard) == sorted(text for at, text in enumerate(texts) if at != number)
        assert one.blamed == []
    said_to = sum(len(one.mesh.topics[TOPIC]) - 1 for one in people) + Habits().flood
    assert sum(one.copies for one in people) <= len(texts) * said_to


def test_what_a_neighbour_said_before_it_is_greeted_again_is_not_forgotten() -> None:
    """Both dialled: its first words come on the link that stays, and then we greet it there, too."""
    village, one, other = pair()
    one.mesh.join(other.address, True, village.now)
    village.run()
    village.tick(3)
    village.publish(one, b"still heard")
    assert other.heard == [b"still heard"]


def test_who_speaks_on_a_new_stream_listens_to_what_it_says_there() -> None:
    village, one, other = pair()
    one.mesh.anew(other.address)
    village.publish(one, b"nobody listens")
    other.mesh.join(one.address, False, village.now)
    village.run()
    village.publish(one, b"heard")
    assert other.heard == [b"heard"]


def test_meshes_keep_their_size_and_are_mutual() -> None:
    village, people = town()
    village.tick(70)
    habits = Habits()
    for one in people:
        members = one.mesh.topics[TOPIC]
        assert min(habits.low, len(one.mesh._neighbours) // 4) <= len(members) <= habits.high
        assert all(one.address in village.all[peer].mesh.topics[TOPIC] for peer in members)


def test_a_third_of_the_village_dies_and_the_others_go_on_hearing_each_other() -> None:
    village, people = town(60, 8)
    rng = Random(SEED)
    dead = rng.sample(people, 20)
    for one in dead:
        del village.all[one.address]
        for other in village.all.values():
            other.mesh.part(one.address)
    village.tick(2)
    alive = list(village.all.values())
    village.publish(alive[0], b"who is left?")
    assert all(one.heard == [b"who is left?"] for one in alive[1:])


def test_who_comes_in_the_middle_hears_what_was_said_a_moment_ago() -> None:
    village, one, other = pair()
    village.publish(one, b"news")
    late = village.settle("late")
    village.subscribe(late)
    village.link(late, other)
    village.tick(2)
    assert late.heard == [b"news"]


def test_who_comes_late_hears_at_once_what_its_neighbour_said_last_and_nobody_hears_it_again() -> None:
    village, one, other = pair()
    for word in (b"first", b"last"):
        village.publish(one, word)
    village.tick(20)
    late = neighbours(one, village, 1, "late")[0]
    village.tick(1)
    assert late.heard == [b"last"]
    copies = late.copies
    for _ in range(5):
        one.mesh.hear(late.address, Rpc(left=(TOPIC,)), 40, village.now)
        one.mesh.hear(late.address, Rpc(joined=(TOPIC,)), 40, village.now)
    village.run()
    assert late.copies == copies, "to listen anew brings nothing anew"
    village.tick(60)
    later = neighbours(one, village, 1, "later")[0]
    village.tick(1)
    assert later.heard == []  # others have forgotten it by now, and would take it for news
    assert other.heard == [b"first", b"last"]


def test_a_mesh_that_keeps_things_to_itself_is_got_round_and_whoever_helped_comes_into_it() -> None:
    village = Village()
    victim = village.settle("victim")
    village.subscribe(victim)
    deaf = neighbours(victim, village, Habits().degree)
    assert len(victim.mesh.topics[TOPIC]) == Habits().degree
    for one in deaf:
        one.deaf = True
    honest, source = village.settle("honest"), village.settle("source")
    village.subscribe(honest, source)
    for friend in neighbours(honest, village, Habits().low, "friend")[:2]:
        village.link(honest, friend)  # whom it chose itself: it needs the victim for nothing
    village.link(honest, victim)
    village.link(source, honest)
    victim.mesh.topics[TOPIC].discard(honest.address)
    honest.mesh.topics[TOPIC].discard(victim.address)
    for number in range(3):
        village.publish(source, b"%d" % number)
    assert victim.heard == []
    village.tick()
    assert sorted(victim.heard) == [b"0", b"1", b"2"]
    village.tick(2)
    assert honest.address in victim.mesh.topics[TOPIC]
    village.publish(source, b"now at once")
    assert victim.heard[-1] == b"now at once"


def test_a_full_mesh_is_thinned_and_keeps_those_whom_we_called_and_who_tell_us_first() -> None:
    village = Village()
    me = village.settle("me")
    village.subscribe(me)
    ours = [village.settle(f"ours {number}") for number in range(2)]
    for one in ours:
        village.subscribe(one)
        village.link(me, one)
    crowd = neighbours(me, village, 6)
    for number, one in enumerate(crowd[:4]):
        village.publish(one, b"first %d" % number)
    more = neighbours(me, village, 4, "more")
    me.mesh.topics[TOPIC].update(one.address for one in more)
    village.tick()
    members = me.mesh.topics[TOPIC]
    assert len(members) == Habits().degree
    assert {one.address for one in crowd[:4]} <= members
    assert {one.address for one in ours} <= members


def test_a_full_mesh_turns_callers_away_and_tells_them_for_how_long() -> None:
    village = Village()
    me = village.settle("me")
    village.subscribe(me)
    neighbours(me, village, Habits().high + 4)
    told: list[Rpc] = []
    late = village.settle("late")
    village.subscribe(late)
    village.on_wire = lambda sender, to, data: not (to == late.address and told.append(said(data)))
    village.link(late, me)
    assert len(me.mesh.topics[TOPIC]) <= Habits().high
    assert Prune(TOPIC, Habits().backoff) in [prune for rpc in told for prune in rpc.prune]


def test_only_what_its_author_signed_is_heard_and_passed_on() -> None:
    village, one, other = pair()
    third = village.settle("third")
    village.subscribe(third)
    village.link(third, one)
    forged = msgspec.structs.replace(other.message(b"true"), data=b"false")
    for bad in (
        forged,
        msgspec.structs.replace(forged, signature=b""),
        sign(STRANGER, "/other/1", b"elsewhere", bytes(8)),
    ):
        village.tell(one, other.address, Rpc(messages=(bad,)))
    village.run()
    assert one.heard == third.heard == []
    assert [blame.why for blame in one.blamed] == ["a message that its author did not sign"] * 2
    good = other.message(b"true")
    village.tell(one, other.address, Rpc(messages=(good, good)))
    village.run()
    assert one.heard == third.heard == [b"true"]
    echo = one.message(b"mine")
    village.tell(one, other.address, Rpc(messages=(echo,)))
    assert one.heard == [b"true"]


def test_a_replay_is_not_passed_on_while_it_is_remembered() -> None:
    village, one, other = pair()
    old = village.publish(other, b"old")
    before = one.copies
    for _ in range(50):
        village.tick()
        village.tell(one, other.address, Rpc(messages=(old,)))
    assert one.heard == [b"old"]
    assert one.copies == before + 50


def test_who_floods_is_heard_up_to_the_limit_and_the_others_are_heard_too() -> None:
    habits = Habits(messages=Rate(burst=10, second=1))
    village, one, other = pair(habits)
    third = village.settle("third")
    village.subscribe(third)
    village.link(third, one)
    for number in range(200):
        village.tell(one, other.address, Rpc(messages=(other.message(b"%d" % number),)))
    village.publish(third, b"in spite of it")
    assert len(one.heard) == 11
    assert one.heard[-1] == b"in spite of it"
    assert one.mesh.dropped["messages"] == 190


def test_neighbours_that_flood_together_do_not_use_up_the_checks_of_those_who_say_little() -> None:
    """What they say is genuine, for names cost nothing; and it is more than we check in all."""
    habits = Habits(messages=Rate(burst=40, second=20), checks=Rate(burst=80, second=30))
    village, one, other = pair(habits)
    crowd = neighbours(one, village, 8, "flooder")
    for number in range(30):
        village.tick()
        for flooder in crowd:
            for _ in range(20):
                village.tell(one, flooder.address, Rpc(messages=(flooder.message(b"noise"),)))
        village.run()
        village.publish(other, b"honest %d" % number)
    honest = [text for text in one.heard if text.startswith(b"honest")]
    assert len(honest) == 30
    assert len(one.heard) <= 80 + 30 * 31


def test_who_sends_too_many_bytes_is_not_even_read() -> None:
    village, one, other = pair(Habits(bytes=Rate(burst=11_000, second=100)))
    for number in range(10):
        village.tell(one, other.address, Rpc(messages=(other.message(b"%d" % number),)), 3_000)
    assert len(one.heard) == 3
    assert one.mesh.dropped["bytes"] == 7


def test_lists_without_end_are_asked_for_within_limits_and_empty_promises_count() -> None:
    village, one, other = pair()
    asked: list[bytes] = []
    village.on_wire = lambda sender, to, data: sender != one.address or bool(asked.extend(said(data).want))
    for number in range(100):
        names = tuple(b"%045d" % (number * 100 + at) for at in range(100))
        village.tell(one, other.address, Rpc(have=((TOPIC, names),)))
    village.run()
    assert len(asked) == Habits().asked
    assert any(blame.why == "too many lists of messages" for blame in one.blamed)
    village.tick(4)
    broken = [blame for blame in one.blamed if "did not come" in blame.why]
    assert 1 <= len(broken) <= 2
    assert len(one.mesh._promises) == 0


def test_one_promise_that_is_not_kept_does_not_keep_a_message_from_us() -> None:
    village, one, liar = pair()
    honest = village.settle("honest")
    village.subscribe(honest)
    village.link(honest, one)
    message = sign(STRANGER, TOPIC, b"wanted", bytes(8))
    village.on_wire = lambda sender, to, data: to != liar.address
    village.tell(one, liar.address, Rpc(have=((TOPIC, (message.id,)),)))
    honest.mesh.publish(message, village.now)
    honest.mesh.effects.clear()  # lost on the way
    village.tell(one, honest.address, Rpc(have=((TOPIC, (message.id,)),)))
    village.run()
    assert one.heard == [b"wanted"]


def test_the_same_message_is_given_to_one_only_so_often() -> None:
    village, one, other = pair()
    message = village.publish(one, b"mine")
    before = other.copies
    for _ in range(20):
        village.tell(one, other.address, Rpc(want=(message.id, message.id)))
    village.run()
    assert other.copies == before + Habits().again


def test_a_graft_before_its_time_is_refused_and_blamed_and_grafts_without_end_too() -> None:
    village, one, other = pair()
    one.mesh.tick(village.now)
    one.mesh.topics[TOPIC].discard(other.address)
    one.mesh._prune(TOPIC, [other.address], village.now)
    village.run()
    for _ in range(200):
        village.tell(one, other.address, Rpc(graft=(TOPIC,)))
    assert other.address not in one.mesh.topics[TOPIC]
    reasons = {blame.why for blame in one.blamed}
    assert reasons == {"a graft before its time", "grafts without end"}
    assert sum(blame.points for blame in one.blamed) > 90
    village.tick(Habits().backoff + 2)
    assert other.address in one.mesh.topics[TOPIC]


@pytest.mark.parametrize("topic", ["", "/nobody/1"])
def test_nobody_answers_a_graft_for_a_topic_that_is_not_ours(topic: str) -> None:
    village, one, other = pair()
    village.tell(one, other.address, Rpc(joined=(topic,), graft=(topic,)))
    assert not village._wire


def test_topics_of_a_neighbour_are_bounded() -> None:
    village, one, other = pair()
    village.tell(one, other.address, Rpc(joined=tuple(f"/t/{number}" for number in range(500))))
    assert len(one.mesh._neighbours[other.address].topics) == Habits().topics
    assert [blame.why for blame in one.blamed] == ["too many topics"]


def test_who_left_hears_nothing_and_may_still_speak() -> None:
    village, one, other = pair()
    one.mesh.leave(TOPIC, village.now)
    village.run()
    copies = one.copies
    village.publish(other, b"to nobody")
    village.tick(3)
    assert one.copies == copies
    village.publish(one, b"from outside")
    assert other.heard == [b"from outside"]


def test_an_author_without_an_address_is_nobodys_fault() -> None:
    village, one, other = pair()
    strange = Message(b"\x00\x24" + b"\x08\x01\x12\x20" + bytes(32), b"ed25519", bytes(8), TOPIC, bytes(64))
    village.tell(one, other.address, Rpc(messages=(strange,)))
    assert one.heard == []
    assert one.blamed == []


def crowd(count: int, habits: Habits) -> tuple[Village, Villager, list[Villager]]:
    """One of the village, and neighbours who called."""
    village = Village(habits=habits)
    one = village.settle("one")
    village.subscribe(one)
    others = [village.settle(f"other {number}") for number in range(count)]
    for other in others:
        village.link(other, one)
        village.subscribe(other)
    return village, one, others


def test_promises_of_many_leave_room_for_what_others_have() -> None:
    village, one, (honest, *vandals) = crowd(9, Habits(promises=900, asked=500))
    for vandal in vandals:
        names = tuple(vandal.address + b"%025d" % number for number in range(500))
        village.tell(one, vandal.address, Rpc(have=((TOPIC, names),)))
    assert len(one.mesh._promises) == 800
    village.run()
    asked: list[bytes] = []
    village.on_wire = lambda sender, to, data: sender != one.address or bool(asked.extend(said(data).want))
    village.tell(one, honest.address, Rpc(have=((TOPIC, tuple(b"%045d" % number for number in range(100))),)))
    village.run()
    assert len(asked) == 100
    village.tick(5)
    assert one.mesh._neighbours[honest.address].owes == 0


def test_wishes_without_end_are_granted_within_limits() -> None:
    village, one, (asker,) = crowd(1, Habits(asked=10))
    messages = [village.publish(one, b"%d" % number) for number in range(30)]
    got: list[Message] = []
    village.on_wire = lambda sender, to, data: sender != one.address or bool(got.extend(said(data).messages))
    for _ in range(3):
        village.tell(one, asker.address, Rpc(want=tuple(message.id for message in messages)))
    village.run()
    assert len(got) == 10


def test_pauses_of_neighbours_that_come_and_go_are_not_kept_without_bound() -> None:
    village, one, other = pair(Habits(pauses=50))
    village.tell(one, other.address, Rpc(prune=(Prune(TOPIC, 3_600),)))
    for number in range(400):
        name = key(f"passer-by {number}").address
        one.mesh.join(name, False, village.now)
        village.tell(one, name, Rpc(prune=(Prune(TOPIC, 3_600),)))
        one.mesh.part(name)
        if number % 10 == 0:
            village.tick()
    village.tick()
    assert len(one.mesh._backoff) <= 50 + 10
    assert (TOPIC, other.address) in one.mesh._backoff, "who is still there is left in peace"
