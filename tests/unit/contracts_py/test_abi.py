"""The compiled contracts against what Python believes about them."""

import pytest

from lading_contracts import abi, events, reverts
from lading_contracts.court import CourtParams, Dispute
from lading_contracts.errors import BadAbi
from lading_contracts.port import Log
from lading_protocol.ids import Address, Digest
from lading_protocol.receipts import Receipt


@pytest.mark.parametrize("name", abi.CONTRACTS)
def test_every_event_has_a_struct_with_the_same_fields(name: str) -> None:
    for item in abi.load(name).events.values():
        if item.name == "EIP712DomainChanged":
            continue  # OpenZeppelin declares it; an immutable contract never emits it
        assert events.KINDS[item.name].__struct_fields__ == tuple(map(events.field_name, item.names))


def test_every_custom_error_has_words_and_no_word_lacks_an_error() -> None:
    assert {item.name for item in abi.all_errors().values()} == set(reverts.WORDS)


def test_structs_with_the_contracts_field_order() -> None:
    court = abi.load("AuditCourt")
    assert len(CourtParams.__struct_fields__) == court.functions["params"].outputs[0].count(",") + 1
    assert len(Dispute.__struct_fields__) == court.functions["disputes"].outputs[0].count(",") + 1
    assert len(Receipt.__struct_fields__) == court.functions["open"].inputs[0].count(",") + 1


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
