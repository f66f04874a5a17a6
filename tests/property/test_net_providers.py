"""Records of who provides what: bounded whatever is told, gone in time, and no crowd drives out the others."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from factories import key
from lading_net.core import providers as rules
from lading_net.core.kademlia import ADD_PROVIDER, Contact, Question, decode_question, encode_question
from lading_net.core.places import place
from lading_net.core.providers import LIFE_SECONDS, MOST_OF_KEY, OF_AREA, Providers
from lading_net.core.rpc import Cutter
from lading_net.peer import Endpoint, PeerId

FEW = settings(max_examples=40, deadline=None)
PEERS = [PeerId.from_public_key(key(f"provider {number}").public_key) for number in range(80)]
told = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 79), st.floats(0, 900)), max_size=200)


def contact(number: int) -> Contact:
    return Contact(PEERS[number], (Endpoint("ip4", "8.8.8.8", 4000 + number),))


@FEW
@given(told)
def test_what_is_told_is_known_until_its_time_is_over(script: list[tuple[int, int, float]]) -> None:
    providers, now, last = Providers(), 0.0, dict[tuple[int, int], float]()
    for name, number, pause in script:
        now += pause
        if providers.put(bytes([name]), contact(number), place(f"{number}.1.1.1"), now):
            last[name, number] = now
        for each in range(6):
            known = providers.of(bytes([each]), now)
            live = [who for (what, who), when in last.items() if what == each and when + LIFE_SECONDS > now]
            assert {one.peer for one in known} <= {PEERS[who] for who in live}
            assert len(known) == min(rules.ANSWERED, len(live))
    assert len(providers) <= len(last)


def test_a_crowd_of_names_in_one_place_takes_neither_a_key_nor_all_the_room() -> None:
    providers = Providers()
    honest = [bytes([number]) for number in range(60)]
    for number, name in enumerate(honest):
        assert providers.put(name, contact(number), place(f"{number + 11}.1.1.1"), 0.0)
    for number in range(rules.MOST_RECORDS + 500):
        providers.put(b"key %d" % (number // OF_AREA), contact(number % OF_AREA), place(f"66.6.0.{number % 200}"), 1.0)
    assert len(providers) == rules.MOST_RECORDS
    assert all(providers.of(name, 2.0) for name in honest)
    crowd = [providers.put(b"one key", contact(number), place("66.6.0.1"), 2.0) for number in range(80)]
    assert sum(crowd) == OF_AREA
    nearby = [providers.put(b"our own", contact(number), place("10.0.0.1"), 2.0) for number in range(80)]
    assert sum(nearby) == MOST_OF_KEY


@FEW
@given(st.binary(min_size=1, max_size=60), st.lists(st.integers(0, 79), max_size=20, unique=True))
def test_a_record_survives_the_wire(name: bytes, numbers: list[int]) -> None:
    question = Question(ADD_PROVIDER, name, tuple(map(contact, numbers)))
    (piece,) = Cutter().feed(encode_question(question))
    assert decode_question(piece) == question
