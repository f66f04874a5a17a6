"""The commands that sign for money, on a real chain: what they say, what they refuse, what the chain has afterwards."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from integration.chain.served import Chain, travel
from integration.cli.quay import Outcome, call
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.embedded.server import faucet_key
from lading_contracts.rpc import RpcChain
from lading_contracts.settlement import Batch
from lading_protocol.ids import AgentId, TermsId, digest, from_hex, to_hex
from lading_protocol.keys import PrivateKey
from lading_protocol.pricing import parse_amount
from lading_protocol.receipts import Lock, SessionConsent, Voucher

T = TypeVar("T")
AGENT, CHILD = AgentId(b"\xa1" * 32), AgentId(b"\xa2" * 32)
COIN = 10**18
EPOCH = 7_200


class Harbour:
    """A chain with the contracts, and people with a home each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.served = Chain(folder / "chain")
        self.faucet = faucet_key("lading")
        self.record = folder / "record.json"
        self.contracts: Contracts
        self.on(self._build)
        self.names = ("alice", "maker", "curator", "bob", "host")

    def on(self, work: Callable[[Contracts], Awaitable[T]]) -> T:
        """Run `work` on the contracts through an adapter of its own."""

        async def main() -> T:
            chain = self.served.open()
            try:
                return await work(Contracts(chain, self._deployment) if hasattr(self, "_deployment") else chain)  # type: ignore[arg-type]
            finally:
                await chain.close()

        return asyncio.run(main())

    async def _build(self, chain: Any) -> None:
        # Epochs so long that no machine is too slow to bid in one.
        parameters = msgspec.structs.replace(Parameters.devnet(), epoch_length=EPOCH)
        self._deployment = await deploy(chain, self.faucet, parameters)
        self._deployment.save(self.record)

    def key(self, name: str) -> PrivateKey:
        return self.faucet.child(name)

    def home(self, name: str) -> Path:
        """With a key, gas and 5,000 coins the first time."""
        home = self.folder / name
        if not home.exists():
            home.mkdir(mode=0o700)
            (home / "key").write_text(self.key(name).secret.hex())

            async def fund(contracts: Contracts) -> None:
                await contracts.chain.send(self.faucet, self.key(name).address, b"", 10**18)
                await contracts.coin.transfer(self.faucet, self.key(name).address, 5_000 * COIN)

            self.on(fund)
        return home

    def __call__(self, name: str, *arguments: object, json_: bool = True) -> Outcome:
        """`lading …` as `name`."""
        where = "--home", self.home(name), "--deployment", self.record, "--chain-url", self.served.url
        return call(*arguments, *where, *(("--json",) if json_ else ()))

    def next_epoch(self) -> None:
        """To the first seconds of an epoch, where bids on the next one can be sealed."""
        calendar = self.on(lambda c: c.share_auctions.calendar())
        head = self.on(lambda c: c.chain.block())
        assert head is not None
        self.travel(calendar.start_of(calendar.epoch_at(head.timestamp) + 1) + 5)

    def travel(self, moment: int) -> None:
        async def go(contracts: Contracts) -> None:
            assert isinstance(contracts.chain, RpcChain)
            await travel(contracts.chain, moment)

        self.on(go)


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    made = Harbour(tmp_path_factory.mktemp("harbour"))
    yield made
    made.served.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def agents(harbour: Harbour) -> TermsId:
    """AGENT of maker's with a table of maker alone; returns its terms."""
    harbour.home("maker")
    maker = harbour.key("maker")

    async def publish(contracts: Contracts) -> TermsId:
        from lading_contracts.registry import Party, Role

        await contracts.registry.register(maker, AGENT, royalty_bps=500)
        return await contracts.registry.agree_terms(maker, AGENT, [Party(maker.address, Role.MAKER, 1_000)])

    return harbour.on(publish)


def coins(harbour: Harbour, name: str) -> int:
    return harbour.on(lambda c: c.coin.balance(harbour.key(name).address))


def test_a_deposit_is_said_in_words_rehearsed_and_made(harbour: Harbour) -> None:
    dry = harbour("alice", "wallet", "deposit", "100", "--dry-run").tree
    assert dry["would"] == "be accepted"
    assert any("100 LADE" in words for words in dry["signs"])
    assert int(harbour("alice", "wallet", "balance").tree["free_deposit"]) == 0
    told = harbour("alice", "wallet", "deposit", "100", json_=False)
    assert "You sign" in told.out
    assert "Move 100 LADE from your wallet into the deposit" in told.out
    assert int(harbour("alice", "wallet", "balance").tree["free_deposit"]) == 100 * COIN
    poor = harbour("alice", "wallet", "deposit", "1000000", "--dry-run").tree
    assert len(poor["signs"]) == 2
    broke = harbour("alice", "wallet", "deposit", "1000000")
    assert (broke.code, broke.error["code"]) == (4, "reverted")


def test_somebody_elses_deposit_is_theirs_alone(harbour: Harbour) -> None:
    harbour.home("bob")
    harbour("alice", "wallet", "deposit", "7", "--for", to_hex(harbour.key("bob").address)).tree  # noqa: B018
    assert int(harbour("bob", "wallet", "balance").tree["free_deposit"]) == 7 * COIN
    wrong = harbour("alice", "wallet", "deposit", "7", "--for", "0x12")
    assert (wrong.code, wrong.error["code"]) == (2, "bad_settings")


def test_a_key_is_imported_from_a_file_and_from_standard_input(
    harbour: Harbour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import sys

    key = PrivateKey(b"\x09" * 32)
    (tmp_path / "old").write_text(key.secret.hex())
    made = call("wallet", "import", tmp_path / "old", "--home", tmp_path / "one", "--json").tree
    assert made["address"] == to_hex(key.address)
    monkeypatch.setattr(sys, "stdin", io.StringIO("0x" + key.secret.hex() + "\n"))
    monkeypatch.setenv("LADING_PASSWORD", "correct horse")
    assert call("wallet", "import", "-", "--home", tmp_path / "two", "--json").tree == made | {
        "key_file": str(tmp_path / "two" / "key")
    }
    assert (tmp_path / "two" / "key").read_text().startswith("{")
    again = call("wallet", "import", tmp_path / "old", "--home", tmp_path / "one", "--json")
    assert again.code == 2


def test_channels_are_listed_closed_and_their_rest_comes_back(harbour: Harbour, agents: TermsId) -> None:
    harbour("alice", "wallet", "deposit", "50").tree  # noqa: B018
    alice, host, session = harbour.key("alice"), harbour.key("host"), harbour.key("session")
    harbour.home("host")
    before = int(harbour("alice", "wallet", "balance").tree["free_deposit"])

    async def work(c: Contracts) -> None:
        domain = c.deployment.settlement_domain
        consent = SessionConsent(alice.address).sign(domain, session).signature
        await c.settlement.authorize(alice, session.address, 30 * COIN, 2**40 - 1, consent)
        batch = Batch(host.address, agents)
        lock = Lock(host.address, agents, 0, 20 * COIN).sign(domain, session)
        paid = Voucher(host.address, agents, 0, 10 * COIN).sign(domain, session)
        await c.settlement.lock_and_redeem(host, batch, [(20 * COIN, lock.signature)], [(10 * COIN, paid.signature)])

    harbour.on(work)
    (listed,) = harbour("alice", "wallet", "sessions").tree
    assert (listed["session"], listed["usable"]) == (to_hex(session.address), True)
    (channel,) = harbour("alice", "wallet", "channels").tree
    assert (int(channel["locked"]), int(channel["redeemed"])) == (20 * COIN, 10 * COIN)
    assert harbour("alice", "wallet", "close", channel["channel"]).tree["state"] == "closing"
    closes = harbour("alice", "wallet", "channels").tree[0]["closes"]
    early = harbour("alice", "wallet", "close", channel["channel"])
    assert (early.code, early.error["code"]) == (4, "reverted")
    harbour.travel(closes)
    assert harbour("alice", "wallet", "close", channel["channel"]).tree["state"] == "closed"
    assert int(harbour("alice", "wallet", "balance").tree["free_deposit"]) == before - 10 * COIN
    assert harbour("alice", "wallet", "channels").tree == []
    assert harbour("alice", "wallet", "revoke", to_hex(session.address)).tree
    assert harbour("alice", "wallet", "sessions").tree[0]["usable"] is False


def test_what_is_due_is_shown_and_taken_in_every_role(harbour: Harbour, agents: TermsId) -> None:
    """After the test above: 10 coins were redeemed, of which the maker has a tenth."""
    (row,) = harbour("maker", "earnings").tree
    assert (row["as"], row["share"], int(row["due"])) == ("maker", "10 %", COIN)
    (row,) = harbour("host", "earnings").tree
    assert (row["as"], int(row["due"])) == ("host", 9 * COIN)
    before = coins(harbour, "maker"), coins(harbour, "host")
    dry = harbour("maker", "settle", "--dry-run").tree
    assert dry["would"] == "be accepted"
    assert coins(harbour, "maker") == before[0]
    assert int(harbour("maker", "settle").tree["settled"]) == COIN
    assert int(harbour("host", "settle").tree["settled"]) == 9 * COIN
    assert (coins(harbour, "maker"), coins(harbour, "host")) == (before[0] + COIN, before[1] + 9 * COIN)
    assert harbour("maker", "settle").tree == {"settled": "0", "transactions": 0}
    (row,) = harbour("maker", "earnings").tree
    assert (int(row["claimed"]), int(row["due"])) == (COIN, 0)


def test_a_stake_is_added_by_a_cold_owner_taken_back_and_collected(harbour: Harbour, tmp_path: Path) -> None:
    operator = harbour.key("operator")
    (tmp_path / "operator.key").write_text(operator.secret.hex())
    which = to_hex(operator.address)
    refused = harbour("bob", "stake", "add", "1000", "--operator", which)
    assert (refused.code, refused.error["code"]) == (2, "bad_settings")
    assert "lading node consent" in refused.error["hint"]
    given = call(
        *("node", "consent", to_hex(harbour.key("bob").address), "--key", tmp_path / "operator.key"),
        *("--data", tmp_path, "--deployment", harbour.record, "--json"),
    ).tree["consent"]
    shown = harbour("bob", "stake", "add", "1000", "--operator", which, "--consent", given).tree
    assert (shown["state"], int(shown["stake"])) == ("active", 1_000 * COIN)
    assert [row["operator"] for row in harbour("bob", "stake", "show").tree] == [which]
    assert int(harbour("bob", "stake", "lodge", "30", "--operator", which).tree["surety"]) == 30 * COIN
    held = coins(harbour, "bob")
    assert int(harbour("bob", "stake", "take-back", "20", "--operator", which).tree["surety"]) == 10 * COIN
    assert coins(harbour, "bob") == held + 20 * COIN
    over = harbour("bob", "stake", "take-back", "20", "--operator", which)
    assert (over.code, over.error["code"]) == (4, "reverted")
    unknown = harbour("bob", "stake", "appeal", "0x" + "11" * 32)
    assert (unknown.code, unknown.error["code"]) == (2, "bad_settings")
    shown = harbour("bob", "stake", "remove", "1000", "--operator", which).tree
    assert (shown["state"], int(shown["leaving"])) == ("not active", 1_000 * COIN)
    early = harbour("bob", "stake", "collect", "--operator", which)
    assert (early.code, early.error["code"]) == (4, "reverted")
    harbour.travel(shown["leaves_at"])
    before = coins(harbour, "bob")
    assert int(harbour("bob", "stake", "collect", "--operator", which).tree["leaving"]) == 0
    assert coins(harbour, "bob") == before + 1_000 * COIN


def test_a_share_auction_from_opening_to_the_terms_of_its_epoch(harbour: Harbour, agents: TermsId) -> None:
    harbour.next_epoch()
    maker = to_hex(harbour.key("maker").address)
    opened = harbour(
        *("maker", "bid", "open", to_hex(AGENT), "--role", "curator", "--seats", "1", "--reserve", "5%"),
        *("--party", f"maker={maker}:1000"),
    ).tree
    name, until = opened["auction"], opened["until"]
    again = harbour(
        *("maker", "bid", "open", to_hex(AGENT), "--role", "curator", "--reserve", "5%"),
        *("--party", f"maker={maker}:1000", "--epoch", opened["epoch"]),
    )
    assert (again.code, again.error["code"]) == (4, "reverted")
    assert harbour("curator", "bid", "simulate", name, "3%").tree["your_share"] == 500
    supposed = harbour("curator", "bid", "simulate", name, "3%", "--others", "4%", "--others", "2%").tree
    assert (supposed["would_win"], supposed["your_share"], supposed["wins_below"]) == (False, 0, 200)
    over = harbour("curator", "bid", "commit", name, "6%")
    assert (over.code, over.error["code"]) == (2, "bad_settings")
    dry = harbour("curator", "bid", "commit", name, "3%", "--dry-run").tree
    assert "lost if you do not open it" in dry["signs"][-1]
    for who, ask in (("curator", "3%"), ("bob", "450bps")):
        harbour(who, "bid", "commit", name, ask).tree  # noqa: B018
        assert (harbour.home(who) / "bids.json").stat().st_mode & 0o777 == 0o600
    twice = harbour("curator", "bid", "commit", name, "2%")
    assert (twice.code, twice.error["code"]) == (2, "bad_settings")
    assert harbour("curator", "bid", "reveal").tree == {"opened": 0}
    harbour.travel(until)
    assert [harbour(who, "bid", "reveal").tree["opened"] for who in ("curator", "bob")] == [1, 1]
    assert harbour("curator", "bid", "reveal").tree == {"opened": 0}
    (row,) = [row for row in harbour("curator", "bid", "list").tree if row["auction"] == name]
    assert (row["state"], row["bids"], row["yours"]) == ("opening", "2 sealed, 2 opened", "3 %, opened")
    harbour.travel(row["until"])
    assert harbour("alice", "bid", "settle", name).tree["settled"] >= 1
    terms = harbour.on(lambda c: c.share_auctions.terms_of(AGENT, opened["epoch"]))
    assert terms is not None
    assert harbour.on(lambda c: c.registry.is_open(terms))
    winners = harbour.on(lambda c: c.share_auctions.winners_of(digest(name)))
    assert winners == (harbour.key("curator").address,)
    (shown,) = [row for row in harbour("curator", "earnings").tree if row["as"] == "curator"]
    assert shown["share"] == "4.5 %"


def test_a_promotion_slot_is_bid_on_won_at_the_second_price_and_shown(harbour: Harbour, agents: TermsId) -> None:
    harbour.next_epoch()
    free = [row for row in harbour("alice", "bid", "list").tree if row["for"] == "promotion"]
    name = free[0]["auction"]
    low = harbour("alice", "bid", "commit", name, "0.0001", "--agent", to_hex(AGENT))
    assert (low.code, low.error["code"]) == (2, "bad_settings")
    reserve = harbour("alice", "bid", "simulate", name, "400").tree
    assert reserve["would_win"]
    assert reserve["you_would_pay"] == reserve["reserve"]
    assert harbour("alice", "bid", "simulate", name, "400", "--others", "500").tree["would_win"] is False
    for who, amount in (("alice", "400"), ("bob", "300")):
        harbour(who, "bid", "commit", name, amount, "--agent", to_hex(AGENT)).tree  # noqa: B018
    (row,) = [row for row in harbour("alice", "bid", "list").tree if row["auction"] == name]
    harbour.travel(row["until"])
    before = coins(harbour, "alice"), coins(harbour, "bob")
    deposit = harbour.on(lambda c: c.parameters.market())[1].promotion_deposit
    assert [harbour(who, "bid", "reveal").tree["opened"] for who in ("bob", "alice")] == [1, 1]
    (row,) = [row for row in harbour("alice", "bid", "list").tree if row["auction"] == name]
    harbour.travel(row["until"])
    assert harbour("bob", "bid", "settle", name).tree == {"settled": 1}
    assert coins(harbour, "bob") == before[1] + deposit
    assert coins(harbour, "alice") == before[0] + deposit - 300 * COIN
    epoch = int(name.split("/")[0])
    assert AGENT in harbour.on(lambda c: c.promotion_auctions.promoted(epoch))


def test_a_lease_is_bid_for_accepted_signed_collected_and_left(harbour: Harbour, agents: TermsId) -> None:
    harbour.home("host")
    harbour("host", "stake", "add", "1000").tree  # noqa: B018
    head = harbour.on(lambda c: c.chain.block())
    assert head is not None
    start = head.timestamp + 600
    made = harbour(
        *("alice", "lease", "bid", to_hex(AGENT), "--slots", 2, "--hours", 1, "--rate", "3.6"),
        *("--bond", "10", "--start", start),
    ).tree
    name = made["lease"]
    assert int(made["held"]) == parse_amount("17.2", 18)
    assert name in [row["lease"] for row in harbour("host", "lease", "list").tree]
    assert harbour("host", "lease", "accept", name).tree["state"] == "running"
    harbour.travel(start + 1_000)
    stranger = harbour("bob", "lease", "sign", name, 900)
    assert (stranger.code, stranger.error["code"]) == (2, "bad_settings")
    word = harbour("alice", "lease", "sign", name, 900).tree["signed"]
    before = coins(harbour, "host")
    assert harbour("host", "lease", "collect", word).tree["served"] == 900
    assert coins(harbour, "host") == before + 900 * 2 * COIN // 1_000
    twice = harbour("host", "lease", "collect", word)
    assert (twice.code, twice.error["code"]) == (4, "reverted")
    assert harbour("host", "lease", "quit", name).tree["state"] == "ended"
    gone = harbour("host", "lease", "quit", name)
    assert gone.code == 4


def test_the_chain_is_away(harbour: Harbour) -> None:
    home = harbour.home("alice")
    commands = ("wallet balance", "bid list", "earnings", "settle", "lease list", "stake show")
    network = "--deployment", harbour.record, "--chain-url", "http://127.0.0.1:1"
    for command in commands:
        away = call(*command.split(), "--home", home, *network, "--json")
        assert (away.code, away.error["code"]) == (5, "chain_unreachable"), command


def test_bids_that_name_nothing_are_refused_before_the_chain_is_asked(harbour: Harbour) -> None:
    for words, hint in ((("commit", "7", "3%"), "EPOCH/SLOT"), (("commit", "0x" + "11" * 32, "3%"), "lading bid list")):
        refused = harbour("alice", "bid", *words)
        assert (refused.code, refused.error["code"]) == (2, "bad_settings")
        assert hint in refused.error["hint"]
    for share in ("3", "0%", "101%", "2.555%", "x%", "1.5bps"):
        lot = to_hex(AGENT), "--role", "oem", "--reserve", share, "--party", "maker=0x1:1"
        refused = harbour("maker", "bid", "open", *lot)
        assert refused.code == 2, share


def test_a_file_of_seals_is_json_that_names_the_salt(harbour: Harbour) -> None:
    kept = json.loads((harbour.home("curator") / "bids.json").read_text())
    assert all(len(from_hex(one["salt"], 32)) == 32 for one in kept)
    assert {one["state"] for one in kept} == {"opened"}
