"""AuditCourt in memory: what disputes open on, and the slash. The contract's checks in its order."""

from typing import Any

from msgspec.structs import replace

from lading_contracts import abi
from lading_contracts.committee import Verdict
from lading_contracts.fake.committee import Case, CommitteeModel
from lading_contracts.fake.settlement import SettlementModel
from lading_contracts.fake.world import Book, World, require
from lading_protocol.court import Phase
from lading_protocol.eip712 import Domain
from lading_protocol.errors import BadSignature
from lading_protocol.ids import ZERO_ADDRESS, Address
from lading_protocol.keys import keccak256
from lading_protocol.receipts import Receipt
from lading_protocol.sheaves import Sheaf
from lading_protocol.transcript import sha256

_WHOLE = 10_000


class CourtModel(CommitteeModel):
    def __init__(self, world: World, address: Address, sender: Address, *given: Any) -> None:
        coin, staking, settlement, parameters = given
        super().__init__(world, address, coin, staking, parameters)
        self._settlement: SettlementModel = world.contracts[settlement]
        require(self._staking.court(sender) == address, "BadParams")
        require(self._settlement.coin(sender) == coin, "BadParams")
        longest = self._parameters.longest_dispute(sender) + self._parameters.oldest_receipt(sender)
        require(self._staking.cooldown(sender) > longest, "BadParams")
        self._domain = Domain(world.chain_id, address)
        self._count: Book[str, int] = Book(world, 0)
        self._anchors: Book[tuple[Address, bytes], tuple[int, int]] = Book(world, (0, 0))
        self._attempts: Book[bytes, bytes] = Book(world, b"")
        self._convicted: Book[bytes, bool] = Book(world, False)
        self._coin.approve(address, settlement, 2**256 - 1)

    def anchor(self, sender: Address, root: bytes, count: int) -> int:
        n = self._count["anchors"]
        self._count["anchors"] = n + 1
        if self._anchors[sender, root][0] == 0:
            self._anchors[sender, root] = (self.world.now, count)
        self.emit("Anchored", sender, n, root, count)
        return n

    def open(self, sender: Address, fields: tuple[Any, ...], signature: bytes) -> bytes:
        receipt = Receipt(*fields)
        require(_signed(receipt, signature, self._domain), "BadReceipt")
        return self._open(sender, receipt, fields)

    def open_anchored(
        self,
        sender: Address,
        fields: tuple[Any, ...],
        signature: bytes,
        root: bytes,
        index: int,
        path: tuple[bytes, ...],
    ) -> bytes:
        require(Receipt.takes(len(signature)), "BadReceipt")
        receipt = Receipt(*fields)
        leaf = sha256(receipt.words() + signature)
        count = self._anchors[receipt.host, root][1]
        require(_leads(leaf, index, count, path) == root, "NotAnchored", root)
        return self._open(sender, receipt, fields)

    # --- views ---

    def anchors(self, _sender: Address) -> int:
        return self._count["anchors"]

    def anchor_of(self, _sender: Address, poster: Address, root: bytes) -> tuple[int, int]:
        return self._anchors[poster, root]

    def convicted(self, _sender: Address, attempt: bytes) -> bool:
        return self._convicted[attempt]

    def receipt_digest(self, _sender: Address, fields: tuple[Any, ...]) -> bytes:
        return Receipt(*fields).digest(self._domain)

    def sheaf_digest(self, _sender: Address, root: bytes, count: int) -> bytes:
        return Sheaf(root, count).digest(self._domain)

    def dispute_id(self, _sender: Address, *named: Any) -> bytes:
        return keccak256(abi.encode(("address", "bytes32", "uint32", "address"), named))

    def settlement(self, _sender: Address) -> Address:
        return self._settlement.address

    # --- inside ---

    def _open(self, sender: Address, receipt: Receipt, fields: tuple[Any, ...]) -> bytes:
        about = (receipt.host, receipt.job, receipt.attempt)
        id_ = self.dispute_id(sender, *about, sender)
        attempt = keccak256(abi.encode(("address", "bytes32", "uint32"), about))
        case = self._cases[id_]
        free = case.phase in (Phase.NONE, Phase.VOID) and not self._convicted[attempt]
        require(free, "AlreadyOpened", id_)
        case = self._begin(case)
        p = self._params(case)
        require(self.world.now <= receipt.issued_at + p.receipt_max_age, "ReceiptTooOld", receipt.issued_at)
        require(self._staking.slashable(sender, receipt.host) != 0, "NothingAtStake", receipt.host)
        self._attempts[id_] = attempt
        case = replace(
            case,
            accused=receipt.host,
            challenger=sender,
            signer=receipt.signer,
            payer=self._settlement.payer_of(sender, receipt.signer),
            amount=receipt.amount,
            subject=receipt.digest(self._domain),
        )
        self._cases[id_] = case = self._arm(self._pledge(sender, id_, case, Verdict.GUILTY, p.bond))
        self.emit("Opened", id_, receipt.host, sender, case.subject, case.draw_block, fields)
        self._staking.open_dispute(self.address, receipt.host)
        self._pull(sender, p.bond)
        return id_

    def _accused_owner(self, accused: Address) -> Address:
        return self._staking.owner_of(self.address, accused)

    def _release(self, case: Case) -> None:
        self._staking.close_dispute(self.address, case.accused)

    def _carry_out(self, id_: bytes, case: Case) -> int:
        reward = 0
        if case.verdict is Verdict.GUILTY and not self._convicted[self._attempts[id_]]:
            reward = self._slash(id_, case)
        else:
            self.emit("Executed", id_, int(case.verdict), 0, 0, 0, 0, 0)
        self._staking.close_dispute(self.address, case.accused)
        return reward

    def _slash(self, id_: bytes, case: Case) -> int:
        """Takes and distributes the slash except for the jurors' reward, which it returns."""
        p = self._params(case)
        self._convicted[self._attempts[id_]] = True
        slashed = self._staking.slashable(self.address, case.accused) * p.slash_bps // _WHOLE
        reward = slashed * p.reward_bps // _WHOLE
        fee = slashed * p.finder_bps // _WHOLE
        refund = slashed - reward - fee - slashed * p.burn_bps // _WHOLE
        refund = 0 if case.payer == ZERO_ADDRESS else min(refund, case.amount)
        burnt = slashed - reward - fee - refund
        self.emit("Executed", id_, int(Verdict.GUILTY), slashed, burnt, refund, fee, reward)
        self._staking.slash(self.address, case.accused, slashed, burnt)
        self._staking.jail(self.address, case.accused, self.world.now + p.jail_time)
        if refund:
            self._settlement.deposit_for(self.address, case.payer, refund)
        self._pay(id_, case.challenger, fee)
        return reward


def _leads(leaf: bytes, index: int, count: int, path: tuple[bytes, ...]) -> bytes:
    """The root that `path`, the siblings from the leaf up, leads to in a tree of `count` leaves, if any."""
    if index >= count:
        return b""
    node, siblings, width = leaf, list(path), count
    while width > 1:
        carried = index == width - 1 and width % 2 == 1
        if not carried:
            if not siblings:
                return b""
            sibling = siblings.pop(0)
            node = sha256(b"\x01" + (node + sibling if index % 2 == 0 else sibling + node))
        index, width = index // 2, (width + 1) // 2
    return b"" if siblings else node


def _signed(receipt: Receipt, signature: bytes, domain: Domain) -> bool:
    """By its host, alone or in a sheaf."""
    try:
        return receipt.signer_of(receipt.digest(domain), signature, domain) == receipt.host
    except BadSignature:
        return False
