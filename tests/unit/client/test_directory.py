"""The index of offers: what it keeps, replaces and forgets."""

from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from factories import NOW, chat_request, key, known_offer
from lading.core.matching import Want, rank
from lading.dispatch.directory import MAX_OFFERS_PER_HOST, Directory
from lading_protocol.ids import AgentId

AGENT = AgentId(b"\xaa" * 32)
HOST = key("host")


def able(directory: Directory, now: float = NOW) -> list[bytes]:
    return [c.offer.host for c in rank(directory.candidates(AGENT), Want(chat_request()), now)[0]]


def test_a_newer_offer_replaces_an_older_one_and_never_the_other_way() -> None:
    directory = Directory(needs_beats=False)
    assert directory.put(known_offer(HOST, sequence=2, price_in=7))
    assert not directory.put(known_offer(HOST, sequence=1, price_in=1))
    assert not directory.put(known_offer(HOST, sequence=2, price_in=1))
    assert directory.put(known_offer(HOST, sequence=3, price_in=9))
    assert [known.price.input for known in directory.offers(AGENT)] == [9]


def test_a_coordinator_chooses_only_hosts_that_report() -> None:
    directory = Directory(needs_beats=True)
    directory.put(known_offer(HOST))
    assert able(directory) == []
    directory.beat(HOST.address, free=1, waiting=0, now=NOW)
    assert able(directory) == [HOST.address]
    directory.gone(HOST.address)
    assert able(directory) == []


def test_a_host_withdraws_an_offer_by_leaving_it_out() -> None:
    directory = Directory(needs_beats=False)
    other = known_offer(HOST, agent=b"\xcc" * 32)
    directory.put(known_offer(HOST))
    directory.put(other)
    directory.replace(HOST.address, [other])
    assert directory.offers() == [other]


def test_failures_shun_a_host_longer_each_time_and_a_lie_for_an_hour() -> None:
    directory = Directory(needs_beats=False)
    directory.put(known_offer(HOST))
    directory.failed(HOST.address, NOW, blame=False)
    assert able(directory, NOW + 9) == []
    assert able(directory, NOW + 11) == [HOST.address]
    directory.failed(HOST.address, NOW, blame=False)
    assert able(directory, NOW + 11) == []
    directory.failed(HOST.address, NOW, blame=True)
    assert able(directory, NOW + 3000) == []


def test_expired_offers_are_pruned_and_one_host_cannot_fill_the_index() -> None:
    directory = Directory(needs_beats=False)
    taken = [directory.put(known_offer(HOST, agent=bytes([i]) * 32)) for i in range(MAX_OFFERS_PER_HOST + 3)]
    assert sum(taken) == MAX_OFFERS_PER_HOST
    directory.prune(NOW + 4000)
    assert directory.offers() == []
    assert directory.put(known_offer(HOST, now=NOW + 4000))


def test_hosts_that_are_barred_and_gone_are_forgotten() -> None:
    """Keys are free: whoever comes, is turned away and leaves must not stay in memory."""
    directory = Directory(needs_beats=True)
    for n in range(50):
        visitor = key(f"visitor {n}").address
        directory.bar(visitor, "has no stake")
        directory.gone(visitor)
    directory.prune(NOW)
    assert directory.hosts() == {}
    directory.beat(HOST.address, 1, 0, NOW)
    directory.bar(HOST.address, "has no stake")
    directory.prune(NOW)
    assert directory.host(HOST.address).barred


def test_nothing_is_sent_to_an_offer_whose_terms_have_sunset() -> None:
    directory = Directory(needs_beats=False)
    directory.put(known_offer(HOST))
    directory.sunset(b"\xbb" * 32, int(NOW) + 100)
    assert able(directory) == [HOST.address]
    assert able(directory, NOW + 81) == []
    (lost,) = rank(directory.candidates(AGENT), Want(chat_request()), NOW + 101)[1]
    assert "terms that have sunset" in str(lost)
    directory.sunset(b"\xbb" * 32, 0)
    assert able(directory, NOW + 101) == [HOST.address]


def test_sunsets_of_terms_that_nobody_offers_are_forgotten() -> None:
    directory = Directory(needs_beats=False)
    directory.put(known_offer(HOST))
    for n in range(50):
        directory.sunset(bytes([n]) * 32, int(NOW))
    directory.sunset(b"\xbb" * 32, int(NOW))
    directory.prune(NOW)
    directory.put(known_offer(key("other"), terms=b"\x01" * 32))
    assert able(directory) == [key("other").address]


def test_a_host_whose_reports_are_not_true_is_believed_less_each_time() -> None:
    """It says that it has room and refuses: then it comes after those that take jobs, for longer each time."""
    pauses = pauses_of_a_host_that_refuses(admits=False)
    assert pauses[:4] == [1.0, 4.0, 16.0, 60.0]
    assert max(pauses) == 60.0


def test_a_host_that_others_fill_is_asked_again_soon() -> None:
    """After each refusal it reports that it is full: its reports are true, only late."""
    pauses = pauses_of_a_host_that_refuses(admits=True)
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(pauses) == 8.0


def pauses_of_a_host_that_refuses(*, admits: bool) -> list[float]:
    directory = Directory(needs_beats=True)
    liar, honest = key("liar"), key("honest")
    directory.put(known_offer(liar, price_in=1, price_out=1))
    directory.put(known_offer(honest))
    now, tried = NOW, []
    for _ in range(400):
        for host in (liar, honest):
            directory.beat(host.address, 4, 0, now)
        (first, *_), _ = rank(directory.candidates(AGENT), Want(chat_request()), now)
        if first.offer.host == liar.address:
            tried.append(now - NOW)
            directory.full(liar.address, now)
            if admits:
                directory.beat(liar.address, 0, 0, now + 0.1)
        now += 0.5
    directory.worked(liar.address)
    assert directory.host(liar.address).refusals == 0
    return [later - sooner for sooner, later in pairwise(tried)]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["beat", "gone", "bar", "free", "prune"])), max_size=40))
def test_who_is_barred_and_how_many_report_is_what_a_look_at_all_hosts_would_say(
    steps: list[tuple[int, str]],
) -> None:
    directory, hosts = Directory(needs_beats=True), [key(f"host {n}").address for n in range(4)]
    for turn, (which, what) in enumerate(steps):
        match what:
            case "beat":
                directory.beat(hosts[which], free=1, waiting=0, now=NOW + turn)
            case "gone":
                directory.gone(hosts[which])
            case "prune":
                directory.prune(NOW + turn)
            case _:
                directory.bar(hosts[which], "is barred" if what == "bar" else "")
        states = directory.hosts()
        assert set(directory.barred()) == {host for host, state in states.items() if state.barred}
        assert directory.linked == sum(state.beat_at is not None for state in states.values())


def test_who_gives_jobs_up_comes_last_for_a_while_and_is_never_out_of_reach_for_two_or_three() -> None:
    directory, other = Directory(needs_beats=False), key("other")
    directory.put(known_offer(HOST, price_in=1, price_out=1))
    directory.put(known_offer(other, price_in=9, price_out=9))
    want, rng = Want(chat_request()), Random(1)

    def chosen(now: float) -> bytes:
        pick = directory.choose(AGENT, want, now, rng)
        assert pick is not None
        return pick.offer.host

    directory.gave_up(HOST.address, NOW)
    assert chosen(NOW) == HOST.address, "once that happens"
    for _ in range(2):
        directory.gave_up(HOST.address, NOW)
    assert chosen(NOW) == other.address
    directory.failed(other.address, NOW, blame=False)
    assert chosen(NOW) == HOST.address, "it is better than nobody"
    directory.forgive(other.address, NOW)
    assert chosen(NOW + 19) == other.address
    assert chosen(NOW + 21) == HOST.address
    directory.gave_up(HOST.address, NOW + 21)
    assert able(directory, NOW + 22) == [other.address]
    directory.worked(HOST.address)
    directory.doubt([HOST.address])
    assert chosen(NOW + 100) == other.address, "an audit's doubt is another matter"
    directory.doubt([])
    assert chosen(NOW + 100) == HOST.address


def test_a_host_is_forgiven_what_may_be_a_mishap_and_never_a_lie() -> None:
    """Saying hello costs nothing: whoever lies, or cuts its line each time, would do so after every job."""
    directory = Directory(needs_beats=False)
    directory.put(known_offer(HOST))
    for _ in range(2):
        directory.failed(HOST.address, NOW, blame=False)
        directory.forgive(HOST.address, NOW)
        assert able(directory, NOW) == [HOST.address]
    directory.failed(HOST.address, NOW, blame=False)
    directory.forgive(HOST.address, NOW)
    assert able(directory, NOW) == []
    directory.worked(HOST.address)
    directory.forgive(HOST.address, NOW)
    directory.failed(HOST.address, NOW, blame=True)
    directory.forgive(HOST.address, NOW + 3000)
    assert able(directory, NOW + 3000) == []
    directory.forgive(HOST.address, NOW + 3600)
    assert directory.host(HOST.address).shunned_until == 0
