"""The packed loop of Settlement against a model of its own, written from the interface's prose: bytes in, balances out.

The batches are what anybody may send: good rows, stale ones, rows of strangers, forged and malleable signatures, rows
twice, noise. The fake chain is held to the same answers.
"""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lading_contracts import abi
from lading_contracts.settlement import ChannelKey
from lading_protocol.errors import BadSignature
from lading_protocol.ids import Address, TermsId
from lading_protocol.keys import recover
from lading_protocol.receipts import Lock, Voucher
from property.chain_kit import AGENT, CHILD, key
from property.money_operations import MoneyArea
from property.operations import ENOUGH, play
from property.twin_chains import Call, Twins

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_SIZE = 76
SIGNERS = ("alice", "bob", "session1", "session2", "stranger")
CUMULATIVE = st.sampled_from((0, 1, 7, 20, 31, 40, 41, 60, 99, 2**96 - 1))
SPOILS = ("", "", "", "", "high", "parity", "more", "domain", "kind", "zero", "point")

good = st.tuples(st.sampled_from(SIGNERS), CUMULATIVE, st.sampled_from(SPOILS), st.integers(1, 2))
noise = st.binary(min_size=_SIZE, max_size=_SIZE)
rows = st.lists(st.one_of(good, good, good, noise), max_size=8)
ragged = st.sampled_from((b"", b"", b"", b"", b"", b"x", bytes(75)))
batch = st.tuples(
    st.sampled_from(("host1", "host1", "host2")), st.sampled_from((AGENT, AGENT, CHILD)), st.integers(0, 1)
)
step = st.one_of(
    st.tuples(st.just("lock"), batch, rows, ragged),
    st.tuples(st.just("redeem"), batch, rows, ragged),
    st.tuples(st.just("both"), batch, rows, ragged, rows, ragged),
    st.tuples(st.just("wait"), st.sampled_from((1, 30))),
)


class Channel(msgspec.Struct):
    locked: int = 0
    redeemed: int = 0
    session: bool = False


class Model:
    """Balances of the payers, of their two sessions, and of channels."""

    def __init__(self) -> None:
        self.free = {key("alice").address: 100, key("bob").address: 50}
        self.payer = {key("session1").address: key("alice").address, key("session2").address: key("bob").address}
        self.room = {key("session1").address: 45, key("session2").address: 60}
        self.channels: dict[bytes, Channel] = {}
        self.hosts: dict[Address, int] = {}
        self.gross: dict[bytes, int] = {}

    def lock(self, host: Address, terms: bytes, epoch: int, signed: list[tuple[Address, int]], late: bool) -> list[Any]:
        """(signer, new total) of each row that moved something."""
        moved = []
        for signer, cumulative in signed:
            channel = self.channels.setdefault(ChannelKey(signer, host, TermsId(terms), epoch).id, Channel())
            payer = self.payer.get(signer, signer)
            amount = min(cumulative - channel.locked, self.free.get(payer, 0))
            if signer in self.room:
                # session2 has expired when `late`, session1 never does.
                over = late and signer == key("session2").address
                amount = 0 if over else min(amount, self.room[signer])
            if amount > 0:
                channel.locked += amount
                self.free[payer] -= amount
                if signer in self.room:
                    self.room[signer] -= amount
                moved.append((signer, channel.locked))
        return moved

    def redeem(self, host: Address, terms: bytes, epoch: int, signed: list[tuple[Address, int]]) -> tuple[int, int]:
        """(total, rows that moved something)."""
        total = count = 0
        for signer, cumulative in signed:
            channel = self.channels.setdefault(ChannelKey(signer, host, TermsId(terms), epoch).id, Channel())
            amount = min(cumulative, channel.locked) - channel.redeemed
            if amount > 0:
                channel.redeemed += amount
                total, count = total + amount, count + 1
        self.gross[terms] = self.gross.get(terms, 0) + total
        return total, count


class Packing(MoneyArea):
    def signed_by(self, kind: type[Lock] | type[Voucher], host: str, terms: TermsId, epoch: int, packed: bytes) -> Any:
        """(signer, cumulative) of each whole row that somebody validly signed, read from the bytes alone."""
        domain = self.stage.deployment.settlement_domain
        found = []
        for at in range(0, len(packed) - _SIZE + 1, _SIZE):
            row = packed[at : at + _SIZE]
            cumulative, s = int.from_bytes(row[:12], "big"), int.from_bytes(row[44:], "big")
            signature = row[12:44] + (s % 2**255).to_bytes(32, "big") + bytes([27 + (s >> 255)])
            try:
                signer = recover(kind(key(host).address, terms, epoch, cumulative).digest(domain), signature)
            except BadSignature:
                continue
            found.append((signer, cumulative))
        return found

    def pack(self, kind: type[Lock] | type[Voucher], host: str, terms: TermsId, epoch: int, rows: Any) -> bytes:
        return b"".join(self._row(kind, host, terms, epoch, row) for row in rows)

    def _row(self, kind: type[Lock] | type[Voucher], host: str, terms: TermsId, epoch: int, row: Any) -> bytes:
        if isinstance(row, bytes):
            return row
        signer, cumulative, spoil, times = row
        domain = self.stage.deployment.settlement_domain
        if spoil == "domain":
            domain = msgspec.structs.replace(domain, chain_id=domain.chain_id + 1)
        if spoil == "kind":
            kind = Voucher if kind is Lock else Lock
        signature = key(signer).sign_digest(kind(key(host).address, terms, epoch, cumulative).digest(domain))
        r, s, odd = signature[:32], int.from_bytes(signature[32:64], "big"), signature[64] - 27
        match spoil:
            case "high":  # the other signature of the same point: above 2**255, or read as the parity bit and refused
                s, odd = _ORDER - s, 1 - odd
            case "parity":
                odd = 1 - odd
            case "more":
                cumulative = min(cumulative + 1, 2**96 - 1)
            case "zero":
                r, s = bytes(32), 0
            case "point":
                r = b"\xff" * 32
        word = (s % 2**255) | odd << 255
        return (cumulative.to_bytes(12, "big") + r + word.to_bytes(32, "big")) * times


def begin(twins: Twins) -> Packing:
    """alice and bob have paid in; session1 is alice's for 45, session2 is bob's for 60 and a short time."""
    packing = Packing(twins)
    paid = [("deposit", "alice", 100), ("deposit", "bob", 50)]
    sessions = [
        ("authorize", "alice", "session1", 45, 10_000, "good"),
        ("authorize", "bob", "session2", 60, 20, "good"),
    ]
    assert not any(outcome.refused for outcome in play(twins, [packing], [*paid, *sessions]))
    return packing


@ENOUGH
@given(script=st.lists(step, min_size=1, max_size=6))
def test_rows_move_what_they_say_and_no_more(twins: Twins, script: list[tuple[Any, ...]]) -> None:
    packing, model, late = begin(twins), Model(), False
    for verb, *parts in script:
        if verb == "wait":
            twins.wait(parts[0])
            late = late or parts[0] >= 20
            continue
        (host, agent, epoch), *given_ = parts
        terms = packing.terms(agent)
        kinds = {"lock": [Lock], "redeem": [Voucher], "both": [Lock, Voucher]}[verb]
        whole = [packing.pack(kind, host, terms, epoch, given_[2 * at]) for at, kind in enumerate(kinds)]
        packed = [rows_ + given_[2 * at + 1] for at, rows_ in enumerate(whole)]
        name = {"lock": "lock", "redeem": "redeem", "both": "lockAndRedeem"}[verb]
        outcome = twins.do(Call("settlement", name, "stranger", (key(host).address, terms, epoch, *packed)))
        cut = next((len(one) for one in packed if len(one) % _SIZE), None)
        if cut is not None:
            assert (outcome.refused, outcome.arguments) == ("RaggedRows", (cut,))
            continue
        signed = {
            kind: packing.signed_by(kind, host, terms, epoch, one) for kind, one in zip(kinds, packed, strict=True)
        }
        locked = model.lock(key(host).address, terms, epoch, signed.get(Lock, []), late)
        total, count = model.redeem(key(host).address, terms, epoch, signed.get(Voucher, []))
        assert _told(twins, outcome) == (locked, (total, count) if count else None)
        assert outcome.refused == ("" if locked or count else "NoProgress")
    _compare(packing, model)


def _told(twins: Twins, outcome: Any) -> tuple[list[Any], tuple[int, int] | None]:
    """What the events say: (signer, total) of each Locked, and (amount, rows) of the Redeemed."""
    locked, redeemed = [], None
    for name, (_, topics, data) in zip(twins.happened(outcome), outcome.logs, strict=True):
        if name == "Locked":
            locked.append((Address(topics[1][12:]), abi.decode(("uint32", "uint256"), data)[1]))
        else:
            _, host_amount, royalty, rows_ = abi.decode(("uint32", "uint256", "uint256", "uint256"), data)
            redeemed = (host_amount + royalty, rows_)
    return locked, redeemed


def _compare(packing: Packing, model: Model) -> None:
    for payer, free in model.free.items():
        assert packing.view("settlement", "accounts", payer)[0] == free
    for session, room in model.room.items():
        _, cap, locked, _ = packing.view("settlement", "sessions", session)
        assert cap - locked == room
    for id_, channel in model.channels.items():
        on_real = packing.stage.do(Call("settlement", "channels", "stranger", (id_,), view=True))
        locked, redeemed, *_ = abi.decode(("uint96", "uint96", "uint40", "bool", "bool"), on_real.answer)
        assert (locked, redeemed) == (channel.locked, channel.redeemed)
    for agent in (AGENT, CHILD):
        terms = packing.terms(agent)
        assert packing.view("settlement", "gross", terms)[0] == model.gross.get(terms, 0)
