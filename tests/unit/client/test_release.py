"""Putting an agent and its table on the chain: nothing is sent unless everybody consents and every ancestor is paid."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import key
from lading.core.consents import Basis, default_deadline, owed, shortfall, table_words
from lading.errors import PublishRefused
from lading.release import Release, agreement_words, publish, registration_words, survey
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.errors import Reverted
from lading_contracts.fake import FakeChain
from lading_contracts.registry import Agent, Consents, Party, Role
from lading_net.clock import run_virtual
from lading_protocol.ids import ZERO_DIGEST, AgentId
from lading_protocol.keys import PrivateKey
from lading_protocol.receipts import TermsConsent

MAKER, OEM, CURATOR, WEAVER = key("maker"), key("oem"), key("curator"), key("weaver")
BASE, CHILD = AgentId(b"\xb1" * 32), AgentId(b"\xc1" * 32)
NOW = 1_800_000_000


async def contracts() -> Contracts:
    chain = FakeChain(lambda: float(NOW))
    return Contracts(chain, await deploy(chain, key("bank"), Parameters.devnet()))


def party(who: PrivateKey, role: Role, bps: int) -> Party:
    return Party(who.address, role, bps)


def signed(there: Contracts, release: Release, *who: PrivateKey, deadline: int = NOW + 100) -> Release:
    domain = there.deployment.registry_domain
    papers = {one.address: TermsConsent(release.terms, deadline).sign(domain, one).signature for one in who}
    return msgspec.structs.replace(release, consents=Consents(deadline, papers))


async def sends(there: Contracts) -> int:
    head = await there.chain.block()
    assert head is not None
    return head.number


def test_a_table_of_ones_own_needs_nobody() -> None:
    async def main() -> None:
        there = await contracts()
        release = Release(BASE, (party(MAKER, Role.MAKER, 1500),), royalty_bps=500)
        found = await survey(there, MAKER.address, release, NOW)
        assert (found.registered, found.agreed, found.bases) == (False, False, (Basis.OWNER,))
        terms = await publish(there, MAKER, release, NOW)
        before = await sends(there)
        assert await publish(there, MAKER, release, NOW) == terms == release.terms
        assert await sends(there) == before, "what is there is not sent again"

    run_virtual(main())


def test_who_did_not_consent_is_named_before_anything_is_sent() -> None:
    async def main() -> None:
        there = await contracts()
        before = await sends(there)
        release = Release(BASE, (party(MAKER, Role.MAKER, 1500), party(CURATOR, Role.CURATOR, 300)))
        with pytest.raises(PublishRefused) as caught:
            await publish(there, MAKER, release, NOW)
        assert "curator 0x" in caught.value.message
        assert "3 %" in caught.value.message
        assert f"lading agent consent 0x{BASE.hex()} --party maker=" in str(caught.value)
        assert "lading agent policy curator 300" in str(caught.value)
        assert await sends(there) == before

    run_virtual(main())


@pytest.mark.parametrize("least", [300, 301, 0])
def test_a_policy_is_enough_if_the_share_is(least: int) -> None:
    async def main() -> None:
        there = await contracts()
        await there.registry.set_policy(CURATOR, Role.CURATOR, least)
        release = Release(BASE, (party(MAKER, Role.MAKER, 1500), party(CURATOR, Role.CURATOR, 300)))
        if least == 300:
            assert (await survey(there, MAKER.address, release, NOW)).bases == (Basis.OWNER, Basis.POLICY)
            await publish(there, MAKER, release, NOW)
            return
        with pytest.raises(PublishRefused, match="did not consent"):
            await publish(there, MAKER, release, NOW)

    run_virtual(main())


def test_signatures_are_for_one_table_one_deadline_one_party() -> None:
    async def main() -> None:
        there = await contracts()
        release = Release(BASE, (party(MAKER, Role.MAKER, 1500), party(CURATOR, Role.CURATOR, 300)))
        good = signed(there, release, CURATOR)
        other = signed(there, msgspec.structs.replace(release, table=release.table[:1]), CURATOR)
        for wrong, words in (
            (msgspec.structs.replace(release, consents=other.consents), "not signed by it"),
            (_moved(good, NOW + 200), "not signed by it"),
            (_given_to(good, CURATOR, WEAVER), "did not consent"),
            (signed(there, release, CURATOR, deadline=NOW), "has expired"),
        ):
            with pytest.raises(PublishRefused, match=words):
                await publish(there, MAKER, wrong, NOW)
        assert await there.registry.agent(BASE) is None
        assert (await survey(there, MAKER.address, good, NOW)).bases == (Basis.OWNER, Basis.SIGNED)
        await publish(there, MAKER, good, NOW)

    run_virtual(main())


def _moved(release: Release, deadline: int) -> Release:
    return msgspec.structs.replace(release, consents=Consents(deadline, release.consents.signatures))


def _given_to(release: Release, old: PrivateKey, new: PrivateKey) -> Release:
    papers = {new.address: release.consents.signatures[old.address]}
    return msgspec.structs.replace(release, consents=Consents(release.consents.deadline, papers))


def test_an_ancestor_that_gets_what_it_asks_consents_by_that() -> None:
    async def main() -> None:
        there = await contracts()
        await publish(there, MAKER, Release(BASE, (party(MAKER, Role.MAKER, 1500),), royalty_bps=500), NOW)
        short = Release(CHILD, (party(MAKER, Role.MAKER, 499), party(OEM, Role.OEM, 700)), BASE)
        with pytest.raises(PublishRefused, match=r"asks 5 % and the table gives it 4.99 %"):
            await publish(there, OEM, short, NOW)
        enough = msgspec.structs.replace(short, table=(party(MAKER, Role.MAKER, 500), party(OEM, Role.OEM, 700)))
        assert (await survey(there, OEM.address, enough, NOW)).bases == (Basis.LINEAGE, Basis.OWNER)
        await publish(there, OEM, enough, NOW)

    run_virtual(main())


def test_what_the_registry_would_refuse_is_refused_in_words() -> None:
    async def main() -> None:
        there = await contracts()
        own = (party(MAKER, Role.MAKER, 1500),)
        await publish(there, MAKER, Release(BASE, own), NOW)
        for release, words in (
            (Release(CHILD, (party(OEM, Role.OEM, 1),), AgentId(b"\x99" * 32)), "is not registered on this chain"),
            (Release(BASE, own), "belongs to"),
            (Release(CHILD, (party(OEM, Role.OEM, 10_000),)), "leaves nothing to the host"),
        ):
            with pytest.raises(PublishRefused, match=words):
                await publish(there, OEM, release, NOW)

    run_virtual(main())


def test_what_is_signed_is_said_before() -> None:
    release = Release(CHILD, (party(MAKER, Role.MAKER, 1500), party(CURATOR, Role.CURATOR, 350)), BASE, 250)
    told = registration_words(release)
    assert f"agent 0x{CHILD.hex()} as yours under its parent 0x{BASE.hex()}" in told
    assert "2.5 %" in told
    assert agreement_words(release).endswith("3.5 %, host 81.5 %.")


def test_whoever_signs_in_one_month_signs_for_one_deadline() -> None:
    days = [datetime(2026, 11, day, 23, 59, tzinfo=UTC).timestamp() for day in (1, 15, 30)]
    assert {default_deadline(day) for day in days} == {int(datetime(2027, 1, 1, tzinfo=UTC).timestamp())}
    assert (
        default_deadline(datetime(2026, 12, 31, tzinfo=UTC).timestamp()) == datetime(2027, 2, 1, tzinfo=UTC).timestamp()
    )


PEOPLE = [MAKER, OEM, CURATOR, WEAVER]
LINEAGES = st.lists(st.tuples(st.sampled_from(range(4)), st.integers(0, 3000)), max_size=4)
TABLES = st.lists(st.tuples(st.sampled_from(range(4)), st.integers(1, 2400)), min_size=1, max_size=4)


@given(LINEAGES, TABLES, st.dictionaries(st.sampled_from(range(4)), st.integers(0, 2400), max_size=4))
def test_the_survey_refuses_exactly_what_the_registry_does(
    lineage: list[tuple[int, int]], lines: Sequence[tuple[int, int]], policies: dict[int, int]
) -> None:
    async def main() -> None:
        there = await contracts()
        above = ZERO_DIGEST
        for at, (who, asks) in enumerate(lineage):
            agent = AgentId(bytes([at + 1]) * 32)
            if sum(asked for _, asked in lineage[: at + 1]) > 5_000:
                break  # more than a lineage may ask: the registry's own limit, in words of its own
            await there.registry.register(PEOPLE[who], agent, above, asks)
            above = agent
        for who, least in policies.items():
            await there.registry.set_policy(PEOPLE[who], Role.WEAVER, least)
        table = tuple(party(PEOPLE[who], Role.WEAVER, bps) for who, bps in lines)
        if len({one.payee for one in table}) < len(table):
            return
        release = Release(CHILD, table, AgentId(above) if any(above) else None)
        refused = ""
        try:
            await survey(there, OEM.address, release, NOW)
        except PublishRefused as error:
            refused = error.message
        reverted = ""
        try:
            await there.registry.register(OEM, CHILD, above)
            await there.registry.agree_terms(OEM, CHILD, table)
        except Reverted as error:
            reverted = error.name
        words = {"NoConsent": "did not consent", "AncestorUnderpaid": "asks", "SharesTooHigh": "leaves nothing"}
        assert bool(refused) == bool(reverted)
        assert words.get(reverted, "") in refused

    run_virtual(main())


def test_what_ancestors_ask_counts_up_to_half_and_adds_up_for_one_owner() -> None:
    def ancestor(who: PrivateKey, asks: int) -> Agent:
        return Agent(who.address, AgentId(ZERO_DIGEST), asks, 0, 1)

    asked = owed([ancestor(MAKER, 3000), ancestor(OEM, 1000), ancestor(MAKER, 2500), ancestor(WEAVER, 100)])
    assert asked == {MAKER.address: 4000, OEM.address: 1000}
    assert shortfall((party(MAKER, Role.MAKER, 4000), party(OEM, Role.OEM, 1000)), asked) is None
    short = shortfall((party(MAKER, Role.MAKER, 3000), party(MAKER, Role.CURATOR, 999)), asked)
    assert short is not None
    assert (short.owner, short.asked, short.offered) == (MAKER.address, 4000, 3999)
    assert table_words((party(MAKER, Role.MAKER, 1),)).endswith("0.01 %, host 99.99 %")
