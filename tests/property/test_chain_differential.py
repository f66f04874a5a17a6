"""Random operations on the real contracts and on the fake ones: the same events, refusals and views, always.

Area by area, so that the operations of a play meet each other; CHAIN_EXAMPLES=500 plays longer.
"""

import json
import random
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_contracts import abi, events
from lading_contracts.committee import Verdict
from property.chain_kit import AGENT, CHILD, PARAMETERS
from property.court_operations import DISPUTES, GOVERNANCE, OPERATORS, STAKING, CourtArea, court_views, governance_views
from property.market_operations import AUCTIONS, BASES, LEASES, LENGTH, MarketArea, auction_views, lease_views
from property.money_operations import COIN, MONEY, MoneyArea, money_views
from property.operations import ENOUGH, Step, compare_views, play
from property.registry_operations import DIGESTS, NOTICE, REGISTRY, RegistryArea, registry_views
from property.twin_chains import STAKES, Outcome, Twins

SOME = 60


class Play:
    """Plays scripts with every area's operations, and compares views of the areas that it is about: `most` of them,
    others for every script."""

    def __init__(self, twins: Twins, *about: str, most: int = 1_000) -> None:
        self.twins = twins
        self.registry, self.money = RegistryArea(twins), MoneyArea(twins)
        self.court, self.market = CourtArea(twins), MarketArea(twins)
        self.about, self.most = about, most

    def __call__(self, script: list[Step]) -> list[Outcome]:
        outcomes = play(self.twins, [self.registry, self.money, self.court, self.market], script)
        views = {
            "registry": lambda: registry_views(self.registry),
            "money": lambda: money_views(self.money),
            "court": lambda: court_views(self.court),
            "governance": lambda: governance_views(self.court),
            "auctions": lambda: auction_views(self.market),
            "leases": lambda: lease_views(self.market),
        }
        asked = [one for area in self.about for one in views[area]()]
        some = random.Random(repr(script)).sample(asked, min(len(asked), self.most))
        compare_views(self.twins, some)
        return outcomes

    def happened(self, outcomes: list[Outcome]) -> list[str]:
        return [name for outcome in outcomes for name in self.twins.happened(outcome)]


def refused(outcomes: list[Outcome]) -> list[str]:
    return [outcome.refused for outcome in outcomes if outcome.refused]


def scripts(steps: st.SearchStrategy[Any], most: int = 14) -> st.SearchStrategy[list[Step]]:
    return st.lists(steps, min_size=4, max_size=most)


@ENOUGH
@given(script=scripts(REGISTRY))
def test_lineage_and_tables_alike(twins: Twins, script: list[Step]) -> None:
    Play(twins, "registry", most=SOME)([("register", "weaver", DIGESTS[2], bytes(32), 500), *script])


@ENOUGH
@given(script=scripts(COIN))
def test_the_coin_alike(twins: Twins, script: list[Step]) -> None:
    Play(twins, "money", most=SOME)(script)


@ENOUGH
@given(script=scripts(MONEY))
def test_money_moves_alike(twins: Twins, script: list[Step]) -> None:
    funded = [("deposit", "alice", 40), ("authorize", "alice", "session1", 30, 35, "good")]
    Play(twins, "money", most=SOME)(funded + script)


@ENOUGH
@given(script=scripts(STAKING))
def test_stakes_move_alike(twins: Twins, script: list[Step]) -> None:
    Play(twins, "court", most=SOME)(script)


@ENOUGH
@given(script=scripts(DISPUTES))
def test_disputes_move_alike(twins: Twins, script: list[Step]) -> None:
    opened = [("open", "alice", 0, "good"), ("contest", "maker", DIGESTS[2], AGENT), ("mine", 2)]
    hidden = [("register", "weaver", DIGESTS[2], bytes(32), 0)]
    Play(twins, "court", most=SOME)([*hidden, *opened, *script])


@ENOUGH
@given(script=scripts(GOVERNANCE))
def test_parameters_change_alike(twins: Twins, script: list[Step]) -> None:
    Play(twins, "governance", most=SOME)([("schedule", "governor", "longer", PARAMETERS.timelock_delay), *script])


@ENOUGH
@given(script=scripts(AUCTIONS))
def test_auctions_alike(twins: Twins, script: list[Step]) -> None:
    opened = ("open_auction", "oem", CHILD, 1, 2, 2, 100, BASES[0], "all")
    sealed = [("seal_share", "alice", 1, 80), ("seal_promotion", "bob", 1, 0, CHILD, 9)]
    Play(twins, "auctions", "registry", most=SOME)([opened, *sealed, *script])


@ENOUGH
@given(script=scripts(LEASES))
def test_leases_and_offers_alike(twins: Twins, script: list[Step]) -> None:
    bid = ("bid_lease", "alice", None, 1, 0, 10, 2, 3, 11)
    Play(twins, "leases", most=SOME)([bid, ("accept_lease", "host1", 0, "host1"), *script])


# --- whole roads, so that the random walks above need not find them ---


def test_a_guilty_host_is_slashed_alike(twins: Twins) -> None:
    case = ("court", "alice", 0)
    guilty = [Verdict.GUILTY] * 15
    run = Play(twins, "court", "money")
    outcomes = run([
        ("authorize", "bob", "session1", 30, 35, "good"),
        ("open", "alice", 0, "good"),
        ("open", "op2", 1, "good"),
        *[("mine", 2), ("draw", case), ("vote", case, guilty), ("tally", case)],
        *[("appeal", "host1", case), ("mine", 2), ("draw", case), ("vote", case, guilty), ("tally", case)],
        ("execute", case),
        ("wait", PARAMETERS.court.appeal_window),
        ("execute", case),
        ("open", "bob", 0, "good"),
        ("unjail", "host1"),
        ("wait", PARAMETERS.court.jail_time),
        ("stake", "host1", "host1", 60, True),
    ])  # fmt: skip
    assert refused(outcomes) == ["TooEarly", "AlreadyOpened", "TooEarly"]
    happened = run.happened(outcomes)
    assert happened.count("Slashed") == 1
    assert happened.count("Revealed") == 3 + 6


def test_an_innocent_host_keeps_its_stake_alike(twins: Twins) -> None:
    case = ("court", "op2", 1)
    run = Play(twins, "court")
    outcomes = run([
        ("anchor", "host1", 3),
        ("open_anchored", "op2", 1, 3, True),
        *[("mine", 2), ("draw", case), ("vote", case, [Verdict.HONEST] * 3), ("tally", case)],
        *[("appeal", "op2", case), ("mine", 2), ("draw", case), ("wait", 40), ("tally", case)],
        ("execute", case),
    ])  # fmt: skip
    assert refused(outcomes) == []
    assert {"Stands", "Executed", "Paid"} <= set(run.happened(outcomes))


def test_a_minority_undoes_a_frame_up_alike(twins: Twins) -> None:
    """Two of three say guilty; the third, whoever it is, appeals, and the next committee finds it right."""
    case = ("court", "alice", 0)
    run = Play(twins, "court", "money")
    outcomes = run([
        ("open", "alice", 0, "good"),
        *[("mine", 2), ("draw", case)],
        ("vote", case, [Verdict.GUILTY, Verdict.HONEST, Verdict.GUILTY]),
        ("tally", case),
        *[("appeal", operator, case) for operator in OPERATORS],
        *[("mine", 2), ("draw", case), ("vote", case, [Verdict.HONEST] * 7), ("tally", case)],
        ("wait", PARAMETERS.court.appeal_window),
        ("execute", case),
        *[("take_back", owner, operator, "court", 10) for operator, owner in STAKES.items()],
    ])  # fmt: skip
    names = refused(outcomes)
    assert names.count("NoSurety") == 2, "who framed cannot take back what it lost"
    assert "Appealed" in run.happened(outcomes)
    assert "Slashed" not in run.happened(outcomes)


def test_a_hidden_parent_is_found_alike(twins: Twins) -> None:
    case = ("lineage_court",)
    run = Play(twins, "court", "registry")
    outcomes = run([
        ("register", "weaver", DIGESTS[2], bytes(32), 0),
        ("agree_terms", "weaver", DIGESTS[2], (("weaver", 3, 100),), "none"),
        ("contest", "maker", DIGESTS[2], AGENT),
        ("answer", "weaver"),
        *[("mine", 2), ("draw", case), ("vote", case, [Verdict.GUILTY] * 3), ("tally", case)],
        ("wait", PARAMETERS.court.appeal_window),
        ("execute", case),
        ("condemn", DIGESTS[2], (("weaver", 3, 100),)),
    ])  # fmt: skip
    assert refused(outcomes) == []
    assert {"Upheld", "Adopted", "Condemned"} <= set(run.happened(outcomes))


def test_silence_admits_a_hidden_parent_alike(twins: Twins) -> None:
    hidden = [("register", "weaver", DIGESTS[2], bytes(32), 0), ("wait", 1), ("contest", "maker", DIGESTS[2], AGENT)]
    run = Play(twins, "court")
    outcomes = run([*hidden, ("uphold",), ("wait", PARAMETERS.court.answer_window), ("answer", "weaver"), ("uphold",)])
    assert refused(outcomes) == ["TooEarly", "TooLate"]
    assert "Adopted" in run.happened(outcomes)


@pytest.mark.parametrize("role", [0, 3])
def test_an_auction_makes_terms_that_are_paid_alike(twins: Twins, role: int) -> None:
    run = Play(twins, "auctions", "registry")
    outcomes = run([
        ("open_auction", "oem", CHILD, 1, role, 2, 100, BASES[0], "all"),
        *[("seal_share", name, 1, bps) for name, bps in (("alice", 50), ("bob", 80), ("weaver", 90), ("curator", 100))],
        *[("seal_promotion", name, 1, 0, CHILD, bid) for name, bid in (("alice", 9), ("bob", 12), ("weaver", 12))],
        ("wait", 2 * (LENGTH // 3)),
        *[("open_share", name, 1, BASES[0], True) for name in ("alice", "bob", "weaver")],
        *[("open_promotion", name, 1, 0, True) for name in ("weaver", "alice", "bob")],
        ("wait", LENGTH),
        ("settle_shares", 1, BASES[0]),
        ("settle_promotion", 1, 0),
    ])  # fmt: skip
    assert refused(outcomes) == []
    assert {"AuctionSettled", "TermsSunsetSet", "Promoted"} <= set(run.happened(outcomes))


@pytest.mark.parametrize("end", ["quit_lease", "vacate_lease", "finish_lease"])
def test_a_lease_is_served_and_ends_alike(twins: Twins, end: str) -> None:
    run = Play(twins, "leases", "money")
    leaving = {"quit_lease": ("quit_lease", "warm", 0), "vacate_lease": ("vacate_lease", "alice", 0)}
    outcomes = run([
        ("set_payout", "op3", "op3", "bob"),
        ("bid_lease", "alice", None, 2, 0, 10, 2, 3, 11),
        ("accept_lease", "warm", 0, "op3"),
        ("wait", 7),
        ("collect_lease", 0, 3, "tenant"),
        *([leaving[end]] if end in leaving else []),
        ("wait", 86_410),
        *([("finish_lease", 0)] if end != "quit_lease" else []),
    ])  # fmt: skip
    assert refused(outcomes) == []
    assert run.happened(outcomes).count("LeaseEnded") == 1


def test_a_closed_channel_never_opens_again(twins: Twins) -> None:
    channel = ("alice", "host1", AGENT, 0)
    outcomes = Play(twins, "money")([
        ("deposit", "alice", 60),
        ("lock", "host1", AGENT, 0, [("alice", 30, False)]),
        ("start_close", "alice", *channel),
        ("redeem", "host1", AGENT, 0, [("alice", 11, False)]),
        ("start_close", "alice", *channel),
        ("finish_close", "bob", *channel),
        ("wait", 10),
        ("finish_close", "bob", *channel),
        ("lock", "host1", AGENT, 0, [("alice", 60, False)]),
        ("redeem", "host1", AGENT, 0, [("alice", 30, False)]),
        ("lock", "host1", AGENT, 1, [("alice", 60, False)]),
    ])  # fmt: skip
    assert refused(outcomes) == ["NotClosable", "TooEarly", "NoProgress", "NoProgress"]


def test_terms_that_have_sunset_take_no_locks_but_vouchers_alike(twins: Twins) -> None:
    outcomes = Play(twins, "money")([
        ("deposit", "alice", 60),
        ("lock", "host1", AGENT, 0, [("alice", 30, False)]),
        ("end_terms", AGENT, NOTICE),
        ("wait", NOTICE),
        ("lock", "host1", AGENT, 0, [("alice", 60, False)]),
        ("lock_and_redeem", "host1", AGENT, 0, [("alice", 60, False)], [("alice", 60, False)]),
        ("claim", AGENT, 0),
    ])  # fmt: skip
    assert refused(outcomes) == ["TermsClosed"]


def test_changes_of_the_parameters_wait_for_the_timelock_alike(twins: Twins) -> None:
    delay = PARAMETERS.timelock_delay
    run = Play(twins, "governance")
    outcomes = run([
        *[("schedule", "governor", kind, delay) for kind in ("longer", "slots", "poor")],
        ("carry_out", "longer"),
        ("wait", delay),
        *[("carry_out", kind) for kind in ("longer", "slots", "poor")],
    ])  # fmt: skip
    assert refused(outcomes) == ["TimelockUnexpectedOperationState", "BadParams"]
    assert {"CourtParamsSet", "MarketParamsSet"} <= set(run.happened(outcomes))


# --- nothing is left out ---

NOT_MODELLED = {
    "TimelockController": {
        *("scheduleBatch", "executeBatch", "hashOperationBatch", "grantRole", "revokeRole", "renounceRole"),
        *("getRoleAdmin", "supportsInterface", "onERC721Received", "onERC1155Received", "onERC1155BatchReceived"),
    }
}
"""Batches and roles of the timelock: nothing of ours asks for them."""


@pytest.mark.parametrize("name", abi.CONTRACTS)
def test_every_function_is_modelled(twins: Twins, name: str) -> None:
    model = twins.model(name)
    verbs = {item.name for item in abi.load(name).functions.values()} - NOT_MODELLED.get(name, set())
    missing = {verb for verb in verbs if not _is_fixed(verb) and not hasattr(model, events.field_name(verb))}
    assert not missing


@pytest.mark.parametrize("name", abi.CONTRACTS)
def test_every_verb_is_played(name: str) -> None:
    """The operations name each function that changes anything."""
    sources = [Path(__file__).with_name(f"{area}_operations.py") for area in ("registry", "money", "court", "market")]
    text = "".join(path.read_text() for path in sources)
    path = resources.files("lading_contracts") / "abi" / f"{name}.json"
    entries = [entry for entry in json.loads(path.read_text())["abi"] if entry["type"] == "function"]
    verbs = {entry["name"] for entry in entries if entry["stateMutability"] in ("nonpayable", "payable")}
    named = {verb for verb in verbs if f'"{verb}"' in text or verb.endswith("WithAuthorization")}
    assert verbs - NOT_MODELLED.get(name, set()) == named - NOT_MODELLED.get(name, set())


def _is_fixed(verb: str) -> bool:
    """Constants and digests, which other tests compare with what Python computes."""
    return verb.isupper() or verb == "eip712Domain"
