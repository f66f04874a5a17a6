"""The compiled contracts against what Python believes about them."""

import inspect
import json
import re
from importlib.resources import files
from typing import Any

import msgspec
import pytest

from factories import network
from lading_contracts import abi, deployment, events, reverts
from lading_contracts.committee import Dispute
from lading_contracts.contract import Contract
from lading_contracts.court import Anchor
from lading_contracts.errors import BadAbi
from lading_contracts.fake import FakeChain
from lading_contracts.leases import Lease, LeaseRequest
from lading_contracts.lineage import Contest
from lading_contracts.parameters import CourtParams, MarketParams
from lading_contracts.port import Log
from lading_contracts.promotions import PromotionSlot
from lading_contracts.registry import Agent, Terms
from lading_contracts.settlement import Account, Channel, Session
from lading_contracts.shares import ShareAuction
from lading_contracts.staking import Operator
from lading_protocol.ids import Address, Digest
from lading_protocol.receipts import Offer, Receipt


@pytest.mark.parametrize("name", abi.CONTRACTS)
def test_every_event_has_a_struct_with_the_same_fields(name: str) -> None:
    for item in abi.load(name).events.values():
        if item.name == "EIP712DomainChanged":
            continue  # OpenZeppelin declares it; an immutable contract never emits it
        assert events.KINDS[item.name].__struct_fields__ == tuple(map(events.field_name, item.names))


def test_every_custom_error_has_words_and_no_word_lacks_an_error() -> None:
    assert {item.name for item in abi.all_errors().values()} == set(reverts.WORDS)


STRUCTS: list[tuple[type[msgspec.Struct], str, str]] = [
    (Agent, "AgentRegistry", "agents"),
    (Terms, "AgentRegistry", "terms"),
    (Account, "Settlement", "accounts"),
    (Session, "Settlement", "sessions"),
    (Channel, "Settlement", "channels"),
    (Operator, "Staking", "operators"),
    (CourtParams, "Parameters", "courtAt"),
    (MarketParams, "Parameters", "marketAt"),
    (Dispute, "AuditCourt", "disputes"),
    (Anchor, "AuditCourt", "anchorOf"),
    (Contest, "LineageCourt", "contests"),
    (ShareAuction, "ShareAuctions", "auctions"),
    (PromotionSlot, "PromotionAuctions", "slots"),
    (Lease, "Leases", "leases"),
]


@pytest.mark.parametrize(("struct", "contract", "view"), STRUCTS, ids=lambda one: getattr(one, "__name__", one))
def test_structs_have_the_fields_of_what_the_contracts_return(
    struct: type[msgspec.Struct], contract: str, view: str
) -> None:
    """By name and order, but for a few that Python calls otherwise."""
    entry = next(one for one in document(contract) if one["type"] == "function" and one["name"] == view)
    outputs = entry["outputs"]
    fields = outputs[0]["components"] if outputs[0]["type"] == "tuple" else outputs
    named = [RENAMED.get((contract, one["name"]), events.field_name(one["name"])) for one in fields]
    assert tuple(named) == struct.__struct_fields__


RENAMED = {("AgentRegistry", "count"): "parties", ("Staking", "stake_"): "stake"}


def document(contract: str) -> list[dict[str, Any]]:
    text = (files("lading_contracts") / "abi" / f"{contract}.json").read_text("utf-8")
    entries: list[dict[str, Any]] = json.loads(text)["abi"]
    return entries


def test_signed_structs_that_are_arguments_have_the_contracts_fields() -> None:
    for struct, contract, verb in ((Receipt, "AuditCourt", "open"), (Offer, "OfferBook", "publish")):
        entry = next(one for one in document(contract) if one["type"] == "function" and one["name"] == verb)
        named = tuple(events.field_name(one["name"]) for one in entry["inputs"][0]["components"])
        assert named == struct.__struct_fields__
    entry = next(one for one in document("Leases") if one["type"] == "function" and one["name"] == "bid")
    named = tuple(events.field_name(one["name"]) for one in entry["inputs"][0]["components"])
    assert named == LeaseRequest.__struct_fields__


# Verbs that only another contract may call.
BETWEEN_CONTRACTS = {"adopt", "agreeAuctioned", "slash", "jail", "openDispute", "closeDispute"}
# What Python computes, or has as a constant; a test on a chain compares the ids.
COMPUTED = {
    "termsId",
    "tagOf",
    "channelId",
    "disputeId",
    "voteCommitment",
    "contestId",
    "auctionId",
    "sealOf",
    "leaseId",
}
# How the contracts are wired: lading_contracts.verify compares it with the record.
WIRING = {"registry", "settlement", "staking", "parameters", "DOMAIN_SEPARATOR", "eip712Domain"}
# What a governor does rarely is left to the governor's own tools.
TIMELOCK = {
    *("scheduleBatch", "executeBatch", "hashOperation", "hashOperationBatch", "updateDelay", "isOperation"),
    *("isOperationPending", "isOperationReady", "isOperationDone", "grantRole", "revokeRole", "renounceRole"),
    *("getRoleAdmin", "supportsInterface", "onERC721Received", "onERC1155Received", "onERC1155BatchReceived"),
}


@pytest.mark.parametrize("name", abi.CONTRACTS)
def test_every_verb_and_view_has_a_method(name: str) -> None:
    contracts = vars(deployment.Contracts(FakeChain(lambda: 0.0, chain_id=1), network(1)))
    kind = next(type(part) for part in contracts.values() if getattr(part, "NAME", "") == name)
    source = "".join(inspect.getsource(part) for part in kind.__mro__ if issubclass(part, Contract))
    used = set(re.findall(r'"(\w+)"', source))
    lacking = {
        one
        for one in abi.load(name).functions
        if one not in used and not one.isupper() and "_" not in one and not one.endswith("Digest")
    }
    assert lacking <= BETWEEN_CONTRACTS | COMPUTED | WIRING | TIMELOCK


def test_nested_tuples_keep_their_shape() -> None:
    kinds = ("(bytes32,(address,uint8,uint16)[],uint256)[]",)
    values = (((b"a" * 32, ((Address(b"p" * 20), 1, 2), (Address(b"q" * 20), 3, 4)), 5),),)
    assert abi.decode(kinds, abi.encode(kinds, values)) == values


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(BadAbi, match="do not fit"):
        abi.load("Settlement").call("deposit", 2**96)
    with pytest.raises(BadAbi, match="0 bytes"):
        abi.load("Settlement").result("accounts", b"")
    with pytest.raises(BadAbi, match="no function mint"):
        abi.load("AICoin").call("mint", 1)
    with pytest.raises(BadAbi, match="not part"):
        abi.load("Nothing")


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (abi.encode((), ()), "", "without giving a reason"),
        (bytes.fromhex("08c379a0") + abi.encode(("string",), ("no luck",)), "Error", "no luck"),
        (bytes.fromhex("4e487b71") + abi.encode(("uint256",), (0x11,)), "Panic", "arithmetic overflowed"),
        (bytes.fromhex("deadbeef"), "deadbeef", "unknown error 0xdeadbeef"),
    ],
)
def test_reverts_of_the_language(data: bytes, name: str, words: str) -> None:
    found = reverts.explain(data)
    assert found.name == name
    assert words in found.message


def test_a_custom_error_says_what_why_and_what_to_do() -> None:
    item = next(one for one in abi.all_errors().values() if one.name == "OverFree")
    found = reverts.explain(item.selector + abi.encode(item.inputs, (41,)))
    assert (found.name, found.arguments) == ("OverFree", (41,))
    assert str(found) == "The free balance is too small (free 41). Deposit more, or name a smaller amount."


def test_a_truncated_custom_error_is_still_a_refusal() -> None:
    item = next(one for one in abi.all_errors().values() if one.name == "OverFree")
    assert reverts.explain(item.selector + b"\x01").name == item.selector.hex()


def test_an_event_of_a_later_version_is_passed_over() -> None:
    log = Log(Address(b"a" * 20), (b"t" * 32,), b"", 1, Digest(b"h" * 32), Digest(b"x" * 32), 0)
    assert events.decode("Settlement", log) is None
