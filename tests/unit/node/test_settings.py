"""Settings, the key on disk, terms, and what the node says about itself."""

import asyncio
import stat
from pathlib import Path

import msgspec
import pytest

from factories import key
from lading.errors import BadSettings as BadFile
from lading_contracts.registry import Party, Role
from lading_net.clock import run_virtual
from lading_node import settings as settings_
from lading_node import status
from lading_node.agents import Serving
from lading_node.errors import BadSettings, NoTerms
from lading_node.keyfile import load_key, load_or_make
from lading_node.reach import reachable
from lading_node.settings import AgentSettings, NodeSettings, plan, read, serving, wanted
from lading_node.terms import Found, TermsWatch, find_terms
from lading_protocol.errors import BadKey, LadingError
from lading_protocol.ids import AgentId, TermsId, Wei, to_hex
from lading_protocol.pricing import Price
from simulation.node_world import AGENT, Gateway, Sea

DIGEST = "0x" + "ab" * 32


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, '[node]\nslots = 2\ncredit = 8\nprice_in = "5"\n')
    env = {"LADING_NODE_CREDIT": "16", "LADING_NODE_PRICE_IN": "6", "LADING_NODE_COORDINATORS": "/a,/b"}
    found = read({"price_in": "7", "slots": None}, file, env=env)
    assert (found.slots, found.credit, found.price_in, found.coordinators) == (2, 16, "7", ("/a", "/b"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[node]\nslots = 0\n", "node.slots"),
        ("[node]\nhttp = 99999\n", "node.http"),
        ("[node]\nslotz = 1\n", "slotz"),
        ("[[node.agents]]\nterms = 'x'\n", "node.agents"),
        ("[node]\npace = -1.0\n", "node.pace"),
        ("node = 3\n", "not a table"),
        ("[node\n", "does not read"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadFile, match=words):
        read({}, write(tmp_path, text), env={})


def test_agents_take_the_nodes_prices_unless_they_have_their_own(tmp_path: Path) -> None:
    file = write(
        tmp_path, f"[node]\nprice_in = '3'\n[[node.agents]]\ndigest = '{DIGEST}'\nprice_out = '0.5'\nslots = 9\n"
    )
    (agent,) = wanted(read({}, file, env={}))
    offer = serving(agent, TermsId(b"\x01" * 32), NodeSettings(), 18)
    assert (offer.price.input, offer.price.output, offer.slots) == (3 * 10**18, 5 * 10**17, 9)
    assert offer.agent == bytes.fromhex(DIGEST[2:])


def test_prices_and_digests_are_checked_in_words() -> None:
    with pytest.raises(BadSettings, match=r"node\.price_in.*is not an amount"):
        serving(AgentSettings(DIGEST, price_in="cheap", price_out="1"), TermsId(bytes(32)), NodeSettings(), 18)
    with pytest.raises(BadSettings, match=r"node\.agents.*expected 32"):
        settings_.agent_of(AgentSettings("0x12"))
    assert plan(NodeSettings(redeem_threshold="2"), (), 18, "").policy.threshold == Wei(2 * 10**18)


def test_a_wildcard_is_never_advertised() -> None:
    peer = str(reachable("/ip4/0.0.0.0/tcp/4101", "198.51.100.7"))
    assert peer == "/ip4/198.51.100.7/tcp/4101"
    assert reachable("/ip4/127.0.0.1/tcp/4101", "198.51.100.7") == "/ip4/127.0.0.1/tcp/4101"


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    made, fresh = load_or_make(tmp_path / "deep" / "key", "")
    again, fresh_again = load_or_make(tmp_path / "deep" / "key", "")
    assert (fresh, fresh_again) == (True, False)
    assert made.secret == again.secret
    assert stat.S_IMODE((tmp_path / "deep" / "key").stat().st_mode) == 0o600


def test_a_key_with_a_password_is_encrypted(tmp_path: Path) -> None:
    made, _ = load_or_make(tmp_path / "key", "secret words")
    assert made.secret.hex() not in (tmp_path / "key").read_text()
    assert load_key(tmp_path / "key", "secret words").secret == made.secret
    with pytest.raises(LadingError, match="password"):
        load_key(tmp_path / "key", "wrong")


def test_a_missing_or_broken_key_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BadKey, match="There is no key file"):
        load_key(tmp_path / "none")
    (tmp_path / "bad").write_text("zz")
    with pytest.raises(BadKey, match="is no key file"):
        load_key(tmp_path / "bad")


def test_terms_are_checked_or_found() -> None:
    async def main() -> None:
        sea = await Sea.create()
        contracts, maker, now = sea.contracts, key("maker"), sea.now()
        assert await find_terms(contracts, AGENT, "", now) == Found(sea.terms)
        newer = await contracts.registry.agree_terms(maker, AGENT, [Party(maker.address, Role.MAKER, 900)])
        assert await find_terms(contracts, AGENT, "", now) == Found(newer)
        assert await find_terms(contracts, AGENT, to_hex(sea.terms), now) == Found(sea.terms)
        with pytest.raises(NoTerms, match="not published"):
            await find_terms(contracts, AgentId(b"\x07" * 32), "", now)
        with pytest.raises(NoTerms, match="belong to another agent"):
            await find_terms(contracts, AgentId(b"\x07" * 32), to_hex(sea.terms), now)
        with pytest.raises(NoTerms, match="no terms"):
            await find_terms(contracts, AGENT, DIGEST, now)
        with pytest.raises(NoTerms, match="wrong"):
            await find_terms(contracts, AGENT, "0x1", now)

    run_virtual(main())


def test_terms_that_have_sunset_are_neither_taken_nor_found() -> None:
    async def main() -> None:
        sea = await Sea.create()
        contracts, maker = sea.contracts, key("maker")
        newer = await contracts.registry.agree_terms(maker, AGENT, [Party(maker.address, Role.MAKER, 900)])
        moment = int(sea.now()) + await contracts.registry.notice() + 10
        await contracts.registry.sunset_terms(maker, newer, AGENT, moment)
        assert await find_terms(contracts, AGENT, "", sea.now()) == Found(newer, moment)
        assert await find_terms(contracts, AGENT, "", moment - 10) == Found(sea.terms)
        with pytest.raises(NoTerms, match="have sunset"):
            await find_terms(contracts, AGENT, to_hex(newer), moment - 10)
        await contracts.registry.sunset_terms(maker, sea.terms, AGENT, moment)
        with pytest.raises(NoTerms, match="All terms of agent"):
            await find_terms(contracts, AGENT, "", moment)

    run_virtual(main())


class Shop:
    """An agent as the watch sees it."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving

    def sell_under(self, terms: TermsId, sunset_at: int) -> None:
        self.serving = msgspec.structs.replace(self.serving, terms=terms, sunset_at=sunset_at)


def test_a_node_that_was_told_no_terms_goes_on_to_newer_ones() -> None:
    async def main() -> None:
        sea = await Sea.create()
        contracts, maker, price = sea.contracts, key("maker"), Price(Wei(1), Wei(1))
        free, told = (Shop(Serving(AGENT, sea.terms, price, named=named)) for named in (False, True))
        watch = TermsWatch(contracts, [free, told], sea.now)
        newer = await contracts.registry.agree_terms(maker, AGENT, [Party(maker.address, Role.MAKER, 900)])
        moment = int(sea.now()) + await contracts.registry.notice() + 10
        await contracts.registry.sunset_terms(maker, sea.terms, AGENT, moment)
        for shop in (free, told):
            await watch.look(shop)
        assert (free.serving.terms, free.serving.sunset_at) == (newer, 0)
        assert (told.serving.terms, told.serving.sunset_at) == (sea.terms, moment)

    run_virtual(main())


def test_a_node_says_why_it_earns_nothing() -> None:
    async def main() -> None:
        sea = await Sea.create()
        gateway = Gateway(sea)
        await sea.fund(gateway.key)
        node = sea.node("host", coordinators=("/ip4/10.9.9.9/tcp/4100",))
        task = asyncio.get_running_loop().create_task(node.run())
        await node.started.wait()
        await asyncio.sleep(2)
        why = " ".join(status.why_not_earning(node))
        assert "is not linked" in why
        assert "no stake" in why
        assert status.readiness(node) == []
        await gateway.start()
        await gateway.offers(1)
        await gateway.ask()
        await asyncio.sleep(1)
        shown = status.status(node)
        cost = gateway.ended[0].cost
        assert shown["earnings"]["earned"] == shown["earnings"]["signed"] == str(cost)
        assert shown["jobs"]["done"] == 1
        assert shown["agents"][0]["state"] == "serving"
        assert f"lading_node_earned_wei {cost}\n" in status.metrics(node)
        node.stop()
        await asyncio.sleep(0.01)
        assert "shutting down" in status.readiness(node)
        await task
        assert status.status(node)["agents"][0]["state"] == "stopped"

    run_virtual(main())
