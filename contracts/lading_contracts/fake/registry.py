"""AgentRegistry in memory: split tables and the consents that they need. The contract's checks in its order."""

from typing import Any

import msgspec
from msgspec.structs import replace

from lading_contracts import abi
from lading_contracts.fake.lineage import NOTICE, LineageModel, Table
from lading_contracts.fake.world import Book, World, require, signed_by
from lading_protocol.eip712 import Domain
from lading_protocol.ids import Address, TermsId
from lading_protocol.keys import keccak256
from lading_protocol.receipts import TermsConsent, expand

WHOLE_BPS = 10_000
_MAX_PARTIES = 16
_LAST_ROLE = 4


class Deal(msgspec.Struct, frozen=True):
    """An agreed table, in the order in which the contract shows it. `fixed`: its owner can move the sunset no more."""

    tag: bytes = bytes(20)
    royalty_bps: int = 0
    count: int = 0
    agreed_at: int = 0
    sunset_at: int = 0
    fixed: bool = False


def table_id(agent: bytes, parties: Table) -> TermsId:
    return TermsId(keccak256(abi.encode(("bytes32", "(address,uint8,uint16)[]"), (agent, parties))))


class RegistryModel(LineageModel):
    def __init__(self, world: World, address: Address, sender: Address, *given: Any) -> None:
        self._auctions, court = given
        super().__init__(world, address, court)
        self._domain = Domain(world.chain_id, address)
        self._terms: Book[bytes, Deal] = Book(world, Deal())
        self._policies: Book[tuple[Address, int], int] = Book(world, 0)

    def set_policy(self, sender: Address, role: int, min_bps: int) -> None:
        require(0 < role <= _LAST_ROLE, "UnknownRole", role)
        self._policies[sender, role] = min_bps
        self.emit("PolicySet", sender, role, min_bps)

    def agree_terms(
        self, sender: Address, agent: bytes, parties: Table, deadline: int, consents: tuple[bytes, ...]
    ) -> bytes:
        self._require_may_agree(agent, sender, len(parties))
        id_ = table_id(agent, parties)
        if self._terms[id_].agreed_at:
            return id_
        royalty_bps, missing = self._check_shares(agent, sender, parties)
        self._check_consents(id_, missing, parties, deadline, consents)
        self._write(id_, agent, parties, royalty_bps, 0)
        return id_

    def agree_auctioned(self, sender: Address, agent: bytes, parties: Table, sunset_at: int) -> bytes:
        require(sender == self._auctions, "NotAuctions", sender)
        self._require_may_agree(agent, self._agents[agent].owner, len(parties))
        id_ = table_id(agent, parties)
        royalty_bps, _ = self._check_shares(agent, self.address, parties)
        deal = self._terms[id_]
        if not deal.agreed_at:
            self._write(id_, agent, parties, royalty_bps, sunset_at)
        elif deal.sunset_at:
            later = max(deal.sunset_at, sunset_at)
            self._terms[id_] = replace(deal, sunset_at=later, fixed=True)
            self.emit("TermsSunsetSet", id_, later)
        return id_

    def sunset_terms(self, sender: Address, id_: bytes, agent: bytes, moment: int) -> None:
        deal = self._terms[id_]
        require(deal.agreed_at != 0 and deal.tag == self.tag_of(sender, agent), "UnknownTerms", id_)
        self._owned(agent, sender)
        movable = not deal.fixed and (deal.sunset_at == 0 or self.world.now < deal.sunset_at)
        require(movable, "SunsetFixed", id_)
        self._require_notice(moment)
        self._terms[id_] = replace(deal, sunset_at=moment)
        self.emit("TermsSunsetSet", id_, moment)

    def condemn(self, _sender: Address, agent: bytes, parties: Table) -> None:
        id_ = table_id(agent, parties)
        deal = self._terms[id_]
        require(deal.agreed_at != 0, "UnknownTerms", id_)
        require(any(self._owed_by(agent, parties).short), "NothingToCondemn", id_)
        moment = self.world.now + NOTICE
        if deal.sunset_at:
            moment = min(moment, deal.sunset_at)
        self._terms[id_] = replace(deal, sunset_at=moment, fixed=True)
        self.emit("Condemned", id_, moment)

    # --- views ---

    def check_table(
        self, _sender: Address, agent: bytes, by: Address, parties: Table, deadline: int, consents: tuple[bytes, ...]
    ) -> int:
        self._require_may_agree(agent, by, len(parties))
        id_ = table_id(agent, parties)
        royalty_bps, missing = self._check_shares(agent, by, parties)
        deal = self._terms[id_]
        if not deal.agreed_at or deal.fixed:
            self._check_consents(id_, missing, parties, deadline, consents)
        return royalty_bps

    def terms(self, _sender: Address, id_: bytes) -> tuple[Any, ...]:
        return msgspec.structs.astuple(self._terms[id_])[:-1]

    def is_open(self, _sender: Address, id_: bytes) -> bool:
        deal = self._terms[id_]
        return deal.agreed_at != 0 and (deal.sunset_at == 0 or self.world.now < deal.sunset_at)

    def policy_of(self, _sender: Address, party: Address, role: int) -> int:
        return self._policies[party, role]

    def auctions(self, _sender: Address) -> Address:
        return Address(self._auctions)

    def terms_id(self, _sender: Address, agent: bytes, parties: Table) -> bytes:
        return table_id(agent, parties)

    def tag_of(self, _sender: Address, agent: bytes) -> bytes:
        return keccak256(agent)[:20]

    def consent_digest(self, _sender: Address, id_: bytes, deadline: int) -> bytes:
        return TermsConsent(id_, deadline).digest(self._domain)

    def royalty_bps(self, id_: bytes) -> int:
        return self._terms[id_].royalty_bps

    # --- inside ---

    def _require_may_agree(self, agent: bytes, sender: Address, count: int) -> None:
        node = self._owned(agent, sender)
        require(not self._has_sunset(node), "AgentSunset", agent)
        require(0 < count <= _MAX_PARTIES, "BadPartyCount", count)

    def _write(self, id_: bytes, agent: bytes, parties: Table, royalty_bps: int, sunset_at: int) -> None:
        tag = self.tag_of(self.address, agent)
        self._terms[id_] = Deal(tag, royalty_bps, len(parties), self.world.now, sunset_at, sunset_at != 0)
        self.emit("TermsAgreed", id_, agent, parties)
        if sunset_at:
            self.emit("TermsSunsetSet", id_, sunset_at)

    def _check_shares(self, agent: bytes, sender: Address, parties: Table) -> tuple[int, frozenset[int]]:
        """The sum, and the parties that are neither `sender` nor the owner of an ancestor that gets what it asks."""
        total = _sum_of_shares(parties)
        owed = self._owed_by(agent, parties)
        require(not any(owed.short), "AncestorUnderpaid", owed.short, owed.wanted, owed.offered)
        consenting = {sender, *owed.asked}
        return total, frozenset(at for at, (payee, _, _) in enumerate(parties) if payee not in consenting)

    def _check_consents(
        self, id_: bytes, missing: frozenset[int], parties: Table, deadline: int, consents: tuple[bytes, ...]
    ) -> None:
        require(len(consents) in (0, len(parties)), "BadConsentCount", len(consents))
        digest = TermsConsent(id_, deadline).digest(self._domain)
        for at in sorted(missing):
            payee, role, bps = parties[at]
            signed = bool(consents) and signed_by(payee, digest, _whole(consents[at]))
            if signed and self.world.now < deadline:
                continue
            if 0 < self._policies[payee, role] <= bps:
                continue
            require(signed, "NoConsent", at)
            require(self.world.now < deadline, "ConsentExpired", deadline)


def _whole(signature: bytes) -> bytes:
    """One of 64 bytes (ERC-2098) as one of 65; others as they are."""
    return expand(signature) if len(signature) == 64 else signature


def _sum_of_shares(parties: Table) -> int:
    seen: set[tuple[Address, int]] = set()
    for at, (payee, role, bps) in enumerate(parties):
        require(any(payee) and 0 < role <= _LAST_ROLE and bps != 0, "BadParty", at)
        require((payee, role) not in seen, "DuplicateParty", at)
        seen.add((payee, role))
    total = sum(bps for _, _, bps in parties)
    require(total < WHOLE_BPS, "SharesTooHigh", total)
    return total
