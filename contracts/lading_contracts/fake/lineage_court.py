"""LineageCourt in memory: contests of lineage, answered, upheld or judged. The contract's checks in its order."""

from typing import Any

from msgspec.structs import replace

from lading_contracts import abi
from lading_contracts.committee import Verdict
from lading_contracts.fake.committee import Case, CommitteeModel
from lading_contracts.fake.registry import RegistryModel
from lading_contracts.fake.world import Book, Refused, World, require
from lading_protocol.court import Phase
from lading_protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address
from lading_protocol.keys import keccak256

Contest = tuple[bytes, bytes, int]
"""(agent, parent, answer by)."""


class LineageCourtModel(CommitteeModel):
    def __init__(self, world: World, address: Address, sender: Address, *given: Any) -> None:
        coin, staking, registry, parameters = given
        super().__init__(world, address, coin, staking, parameters)
        self._registry: RegistryModel = world.contracts[registry]
        require(self._registry.lineage_court(sender) == address, "BadParams")
        self._contests: Book[bytes, Contest] = Book(world, (ZERO_DIGEST, ZERO_DIGEST, 0))

    def contest(self, sender: Address, agent: bytes, parent: bytes, evidence: bytes) -> bytes:
        child, above = self._registry.node(agent), self._registry.node(parent)
        require(above.owner == sender, "NotOwner", sender)
        root = child.owner != ZERO_ADDRESS and not any(child.parent) and above.registered_at < child.registered_at
        require(root, "NotContestable", agent)
        id_ = self.contest_id(sender, agent, parent, sender)
        case = self._cases[id_]
        require(case.phase in (Phase.NONE, Phase.VOID), "NotContestable", agent)
        subject = keccak256(abi.encode(("bytes32", "bytes32", "bytes32"), (agent, parent, evidence)))
        case = replace(self._begin(case), accused=child.owner, challenger=sender, subject=subject, phase=Phase.ASKED)
        p = self._params(case)
        self._cases[id_] = self._pledge(sender, id_, case, Verdict.GUILTY, p.bond)
        answer_by = self.world.now + p.answer_window
        self._contests[id_] = (agent, parent, answer_by)
        self.emit("Contested", id_, agent, parent, sender, evidence, answer_by)
        self._pull(sender, p.bond)
        return id_

    def answer(self, sender: Address, id_: bytes) -> None:
        case = self._cases[id_]
        require(case.phase is Phase.ASKED, "NoAnswerDue", id_)
        require(sender == case.accused, "NotOwner", sender)
        answer_by = self._contests[id_][2]
        require(self.world.now < answer_by, "TooLate", answer_by)
        bond = self._params(case).bond
        self._rounds[id_, case.round] = replace(self._rounds[id_, case.round], ruled=True)
        self._cases[id_] = case = self._arm(self._pledge(sender, id_, case, Verdict.HONEST, bond))
        self.emit("Answered", id_, sender, case.draw_block)
        self._pull(sender, bond)

    def uphold(self, _sender: Address, id_: bytes) -> None:
        case = self._cases[id_]
        require(case.phase is Phase.ASKED, "NoAnswerDue", id_)
        answer_by = self._contests[id_][2]
        require(self.world.now >= answer_by, "TooEarly", answer_by)
        self._cases[id_] = replace(case, phase=Phase.CLOSED, verdict=Verdict.GUILTY)
        self._adopt(id_)
        self._pay(id_, case.challenger, self._rounds[id_, case.round].bond)

    # --- views ---

    def contests(self, _sender: Address, id_: bytes) -> Contest:
        return self._contests[id_]

    def contest_id(self, _sender: Address, agent: bytes, parent: bytes, challenger: Address) -> bytes:
        return keccak256(abi.encode(("bytes32", "bytes32", "address"), (agent, parent, challenger)))

    def registry(self, _sender: Address) -> Address:
        return self._registry.address

    # --- inside ---

    def _accused_owner(self, accused: Address) -> Address:
        return accused

    def _carry_out(self, id_: bytes, case: Case) -> int:
        if case.verdict is Verdict.GUILTY:
            self._adopt(id_)
        else:
            self.emit("Dismissed", id_, *self._contests[id_][:2])
        return 0

    def _adopt(self, id_: bytes) -> None:
        agent, parent, _ = self._contests[id_]
        try:
            with self.world.attempt():
                self._registry.adopt(self.address, agent, parent)
        except Refused:
            self.emit("Moot", id_, agent, parent)
        else:
            self.emit("Upheld", id_, agent, parent)
