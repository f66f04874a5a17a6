"""Near-ties: whoever should answer first, and what our own routing says about prompts that were read before."""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from factories import NOW, chat_request, embed_request, key, unsigned_offer
from lading.core.matching import Want
from lading.core.prefix import BLOCK, MOST_BLOCKS, PrefixIndex, chain_of, covered
from lading.dispatch.directory import Directory
from lading_protocol.ids import Address, AgentId
from lading_protocol.messages import ChatRequest, Message

AGENT = AgentId(b"\xaa" * 32)
HOSTS = [key(f"host {n}").address for n in range(12)]
LONG = "The quick brown fox jumps over the lazy dog. " * 400


def market(count: int = 12, free: int = 4) -> Directory:
    directory = Directory(needs_beats=True)
    for host in HOSTS[:count]:
        directory.put(unsigned_offer(host, 100, 100))
        directory.beat(host, free, 0, NOW)
    return directory


def picked(directory: Directory, text: str, now: float = NOW, seed: int = 1) -> Address:
    pick = directory.choose(AGENT, Want(chat_request(text)), now, random.Random(seed))
    assert pick is not None
    return pick.offer.host


def test_equal_offers_share_the_work() -> None:
    directory = market()
    counts = Counter(picked(directory, "hi", seed=n) for n in range(600))
    assert set(counts) == set(HOSTS)
    assert max(counts.values()) < 4 * 600 / len(HOSTS)


def test_a_conversation_stays_where_its_beginning_was_read() -> None:
    directory = market()
    first = picked(directory, LONG, seed=5)
    assert {picked(directory, LONG + "And then?" * n, seed=n) for n in range(40)} == {first}
    assert len({picked(directory, "B" + LONG, seed=n) for n in range(40)}) == 1


def test_the_reader_is_left_when_its_queue_costs_more_than_the_prompt() -> None:
    directory = market()
    first = picked(directory, LONG)
    directory.beat(first, 0, 6, NOW)
    assert picked(directory, LONG) != first


def test_a_reader_whose_link_was_lost_has_forgotten() -> None:
    directory = market(2)
    first = picked(directory, LONG)
    other = next(host for host in HOSTS[:2] if host != first)
    directory.gone(first)
    assert picked(directory, LONG) == other
    directory.beat(first, 4, 0, NOW)
    assert {picked(directory, LONG, seed=n) for n in range(20)} == {other}


def test_own_jobs_count_before_the_host_reports_them() -> None:
    directory = market(2, free=2)
    counts: Counter[Address] = Counter()
    for n in range(4):
        host = picked(directory, f"{n}", seed=n)
        directory.started(host)
        counts[host] += 1
    assert sorted(counts.values()) == [2, 2]


def test_old_reports_are_trusted_less() -> None:
    """With fresh reports the idle host gets everything, with old ones others get their share."""
    directory = market(free=1)
    directory.beat(HOSTS[3], 4, 0, NOW)
    fresh = Counter(picked(directory, LONG + str(n), NOW + 0.5, seed=n) for n in range(1))
    assert fresh
    old = Counter(picked(directory, f"{n}" + LONG, NOW + 3, seed=n) for n in range(200))
    assert len(old) == len(HOSTS)
    assert old[HOSTS[3]] < 90


def test_what_was_seen_of_a_host_decides_between_equals() -> None:
    directory = market(2)
    for _ in range(30):
        for host, seconds in zip(HOSTS[:2], (0.1, 3.0), strict=True):
            pick = directory.choose(AGENT, Want(chat_request(LONG), excluded=frozenset(HOSTS) - {host}), NOW, random)
            assert pick is not None
            directory.answered(pick, seconds)
    assert {picked(directory, f"{n}" + LONG, seed=n) for n in range(30)} == {HOSTS[0]}


def test_a_full_host_with_a_batch_job_of_ours_comes_before_one_with_none() -> None:
    directory = market(free=0)
    directory.started(HOSTS[5], batch=True)
    directory.beat(HOSTS[5], 0, 0, NOW)
    assert {picked(directory, "hi", seed=n) for n in range(20)} == {HOSTS[5]}
    directory.started(HOSTS[5])
    assert picked(directory, "hi") != HOSTS[5], "it clears one slot only"
    directory.ended(HOSTS[5])
    directory.started(HOSTS[5])
    directory.full(HOSTS[5], NOW)
    assert picked(directory, "hi") != HOSTS[5], "it did not give way"
    directory.beat(HOSTS[5], 0, 0, NOW + 0.5)
    assert picked(directory, "hi", NOW + 0.5) == HOSTS[5]


def test_who_lost_a_race_for_free_slots_clears_one_instead() -> None:
    directory = market()
    directory.started(HOSTS[5], batch=True)
    directory.beat(HOSTS[5], 0, 0, NOW)
    calm, rush = Want(chat_request()), Want(chat_request(), rush=True)
    for n in range(20):
        first, second = (directory.choose(AGENT, want, NOW, random.Random(n)) for want in (calm, rush))
        assert first is not None
        assert second is not None
        assert (first.offer.host == HOSTS[5], second.offer.host == HOSTS[5]) == (False, True)


def test_a_stopped_job_asks_no_host_that_has_no_room() -> None:
    directory, idle = market(free=0), Want(chat_request(), idle=True)
    assert directory.choose(AGENT, idle, NOW, random.Random(1)) is None
    directory.beat(HOSTS[3], 1, 0, NOW)
    pick = directory.choose(AGENT, idle, NOW, random.Random(1))
    assert pick is not None
    assert pick.offer.host == HOSTS[3]


def test_a_full_host_that_refuses_may_have_room_a_moment_later() -> None:
    """It had said that it is full: nothing that it says next is doubted."""
    directory = market(2, free=0)
    host = picked(directory, "hi")
    directory.started(host)
    directory.beat(host, 0, 0, NOW + 0.1)
    directory.ended(host)
    directory.full(host, NOW + 0.2)
    directory.beat(host, 1, 0, NOW + 0.3)
    assert picked(directory, "hi", NOW + 0.3) == host


def faster(dearer: float, sooner: float) -> bool:
    """Whether of two hosts the dearer one gets a job that it answers sooner."""
    directory = Directory(needs_beats=True)
    for host, price in zip(HOSTS, (1000, round(1000 * dearer)), strict=False):
        directory.put(unsigned_offer(host, price, price))
        directory.beat(host, 4, 0, NOW)
    for host, pace in zip(HOSTS, (0.001, 0.001 / sooner), strict=False):
        directory.host(host).pace = pace
        directory.host(host).base = 1e-6
    return picked(directory, LONG) == HOSTS[1]


def test_a_dearer_host_must_be_sooner_by_the_square_and_never_dearer_than_the_band() -> None:
    assert not faster(1.0 + 1e-3, 1.0)
    assert faster(1.1, 1.25)
    assert not faster(1.1, 1.17)
    assert faster(1.29, 2.0)
    assert not faster(1.31, 100.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_to_ask_less_never_loses_a_job(seed: int) -> None:
    """Of up to eight offers all are compared: who had got a job gets it for a lower price, too."""
    rng = random.Random(seed)
    directory, prices = market(rng.randrange(2, 7)), {}
    for host in directory.hosts():
        prices[host] = rng.randrange(90, 130)
        directory.put(unsigned_offer(host, prices[host], prices[host], sequence=2))
        directory.host(host).pace = rng.choice([0.0001, 0.0004, 0.001])
    winner = picked(directory, LONG)
    lower = rng.randrange(1, prices[winner])
    for host in directory.hosts():  # nobody has read it
        directory.gone(host)
        directory.beat(host, 4, 0, NOW)
    directory.put(unsigned_offer(winner, lower, lower, sequence=3))
    assert picked(directory, LONG) == winner


# The index of prompts


def chat(*contents: str) -> ChatRequest:
    base = chat_request()
    return ChatRequest(tuple(Message("user", content) for content in contents), 8, base.sampler)


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=0, max_size=3000), st.text(max_size=800), st.text(max_size=800))
def test_chains_agree_exactly_as_far_as_the_prompts_do(common: str, one: str, other: str) -> None:
    left, right = chain_of(AGENT, chat(common, one)), chain_of(AGENT, chat(common, other))
    shared = sum(1 for a, b in zip(left, right, strict=False) if a == b)
    assert left[:shared] == right[:shared]
    assert not set(left[shared:]) & set(right[shared:])
    assert covered(shared) <= max(len(f"user\0{common}\0user\0{text}\0".encode()) for text in (one, other))


def test_a_prompt_of_any_size_takes_few_blocks_and_embeddings_none() -> None:
    assert len(chain_of(AGENT, chat("x" * 500_000))) <= MOST_BLOCKS
    assert chain_of(AGENT, chat("x" * (BLOCK // 2))) == ()
    assert chain_of(AGENT, embed_request("x" * 5000)) == ()
    assert chain_of(AGENT, chat("x" * 5000)) != chain_of(AgentId(b"\xbb" * 32), chat("x" * 5000))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_index_is_bounded_and_forgets_ends_before_beginnings(seed: int) -> None:
    rng = random.Random(seed)
    index = PrefixIndex(limit=40)
    stems = [rng.randbytes(300).hex() for _ in range(6)]
    chains = []
    for _ in range(60):
        text = "".join(rng.choices(stems, k=rng.randrange(1, 8)))
        chain = chain_of(AGENT, chat(text))
        index.note(chain, rng.choice(HOSTS))
        chains.append(chain)
        assert len(index) <= 40
        for one in chains[-12:]:
            held = [block in index._blocks for block in one]
            assert held == sorted(held, reverse=True)
            assert index.known(one) == sum(held)
            owners = index.owners(one)
            assert all(0 < blocks <= sum(held) for blocks in owners.values())


def test_who_read_most_comes_first_and_the_gone_are_not_named() -> None:
    index = PrefixIndex()
    whole, part = chain_of(AGENT, chat(LONG)), chain_of(AGENT, chat(LONG[:3000] + "z" * 9000))
    index.note(part, HOSTS[0])
    index.note(whole, HOSTS[1])
    owners = index.owners(whole)
    assert list(owners) == [HOSTS[1], HOSTS[0]]
    assert owners[HOSTS[1]] == len(whole) > owners[HOSTS[0]] > 0
    index.forget(HOSTS[1])
    assert list(index.owners(whole)) == [HOSTS[0]]
