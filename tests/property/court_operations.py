"""Random operations on stakes, both courts, the parameters and their timelock."""

from typing import Any

from hypothesis import strategies as st
from msgspec.structs import astuple, replace

from lading_contracts import abi
from lading_contracts.committee import Ballot, Verdict
from lading_protocol.ids import ZERO_ADDRESS, Address, Digest
from lading_protocol.keys import keccak256
from lading_protocol.receipts import Finish, Receipt, StakeConsent
from lading_protocol.sheaves import bind
from lading_protocol.transcript import sha256
from property.chain_kit import AGENT, CHILD, PARAMETERS, key
from property.operations import Area, Step, Strategy, mostly, op, wait
from property.registry_operations import DIGESTS
from property.twin_chains import OPENING, STAKES, Call

OPERATORS = tuple(STAKES)
OWNERS = ("host1", "cold", "warm")
WINDOWS = PARAMETERS.court
CHALLENGERS = ("alice", "op2")
COURTS = ("court", "lineage_court")

operator, owner = st.sampled_from(OPERATORS), mostly("cold", "warm", "host1")
amount = st.sampled_from((0, 1, 20, 49, 50, 51, 60))
verdict = mostly(Verdict.GUILTY, Verdict.HONEST)
n = mostly(0, 1, 2)
case = st.one_of(*[st.tuples(st.just("court"), mostly("alice", "op2"), n)] * 3, st.tuples(st.just("lineage_court")))
signatures = st.sampled_from(("good", "good", "bound", "bound", "forged", "short", "cut", "displaced"))
change = st.sampled_from(("longer", "shorter", "bond", "slots", "poor"))

STAKING: Strategy = st.one_of(
    op("stake", owner, operator, amount, mostly(True, False)),
    op("request_unstake", owner, operator, amount),
    op("finish_unstake", operator),
    op("unjail", operator),
    op("as_the_court", mostly("cold", "host1"), operator, mostly("slash", "jail", "openDispute", "closeDispute")),
    wait(1, PARAMETERS.cooldown - 1, PARAMETERS.cooldown),
)
DISPUTES: Strategy = st.one_of(
    op("request_unstake", owner, operator, amount),
    op("finish_unstake", operator),
    op("open", mostly("alice", "op2"), n, signatures),
    op("anchor", mostly("host1", "op2"), st.integers(1, 3)),
    op("open_anchored", mostly("op2", "alice"), n, st.integers(1, 3), mostly(True, False)),
    op("contest", mostly("maker", "oem"), mostly(*DIGESTS[2:4], CHILD), mostly(AGENT, CHILD)),
    op("answer", mostly("weaver", "oem")),
    op("uphold"),
    op("draw", case),
    op("commit", operator, case, verdict),
    op("reveal", operator, case, mostly(True, False)),
    op("vote", case, st.lists(verdict, min_size=2, max_size=15)),
    op("tally", case),
    op("appeal", mostly("alice", "host1", "weaver", "maker"), case),
    op("appeal", operator, case),
    op("execute", case),
    op("collect_unpaid", mostly("alice", "host1"), st.sampled_from(COURTS)),
    op("lodge", owner, operator, st.sampled_from(COURTS), st.sampled_from((0, 1, 3, 5))),
    op("take_back", owner, operator, st.sampled_from(COURTS), st.sampled_from((0, 1, 5, 9))),
    op("mine", st.integers(1, 2)),
    op("mine", mostly(1, 260)),
    wait(1, WINDOWS.appeal_window, WINDOWS.commit_window, WINDOWS.answer_window),
)
GOVERNANCE: Strategy = st.one_of(
    op("schedule", mostly("governor", "alice"), change, mostly(PARAMETERS.timelock_delay, 0)),
    op("carry_out", change),
    op("cancel_change", mostly("governor", "alice"), change),
    op("set_directly", mostly("governor", "alice"), change),
    op("hurry_the_timelock", mostly("governor", "alice")),
    wait(1, PARAMETERS.timelock_delay),
)


class CourtArea(Area):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.sealed: dict[tuple[Any, str], Ballot] = {}

    # --- stakes ---

    def _stake(self, owner: str, operator: str, amount: int, good: bool) -> Call:
        signer = key(operator if good else "stranger")
        consent = signer.sign_digest(StakeConsent(key(owner).address).digest(self.stage.deployment.staking_domain))
        return Call("staking", "stake", owner, (key(operator).address, amount, consent))

    def _request_unstake(self, owner: str, operator: str, amount: int) -> Call:
        return Call("staking", "requestUnstake", owner, (key(operator).address, amount))

    def _finish_unstake(self, operator: str) -> Call:
        return Call("staking", "finishUnstake", "stranger", (key(operator).address,))

    def _unjail(self, operator: str) -> Call:
        return Call("staking", "unjail", "stranger", (key(operator).address,))

    def _as_the_court(self, sender: str, operator: str, verb: str) -> Call:
        """What only the court may do, by somebody else."""
        more = {"slash": (1, 1), "jail": (self.now + 9,)}.get(verb, ())
        return Call("staking", verb, sender, (key(operator).address, *more))

    # --- disputes ---

    def receipt(self, n: int) -> Receipt:
        """Three attempts of host1: paid by alice, by whoever is behind session1, by nobody."""
        signer = (key("alice").address, key("session1").address, Address(ZERO_ADDRESS))[n]
        names = (bytes([n]) * 32, 0, b"r" * 32, AGENT, b"t" * 32, key("host1").address, signer)
        counts = (0, 0, 5, 9, b"p" * 32, b"c" * 32, 1_000, 2_000)
        return Receipt(*names, *counts, 23, Finish.STOP, OPENING - 10)

    def dispute(self, case: Any) -> bytes:
        court, *about = case
        if court == "court":
            challenger, n = about
            receipt = self.receipt(n)
            types = ("address", "bytes32", "uint32", "address")
            return keccak256(abi.encode(types, (receipt.host, receipt.job, 0, key(challenger).address)))
        agent, parent, challenger = self.contested()
        return keccak256(abi.encode(("bytes32", "bytes32", "address"), (agent, parent, key(challenger).address)))

    def contested(self) -> tuple[bytes, bytes, str]:
        """What the plays contest: that weaver's root hides maker's agent."""
        return DIGESTS[2], AGENT, "maker"

    def _open(self, challenger: str, n: int, signature: str) -> Call:
        domain, signer = self.stage.deployment.court_domain, key("op2" if signature == "forged" else "host1")
        alone = self.receipt(n).sign(domain, signer).signature
        bound = bind([self.receipt(one).digest(domain) for one in range(3)], domain, signer)
        swapped = (0).to_bytes(2, "big") if n else (1).to_bytes(2, "big")
        given = {
            "short": alone[:64],
            "bound": bound[n],
            "cut": bound[n][:-32],
            "displaced": bound[n][:65] + swapped + bound[n][67:],
        }.get(signature, alone)
        return Call("court", "open", challenger, (astuple(self.receipt(n)), given))

    def leaves(self, count: int) -> list[bytes]:
        """What host1 anchors: its first receipts, with signatures that are no good."""
        return [sha256(self.receipt(n).words() + bytes([n]) * 65) for n in range(count)]

    def _anchor(self, poster: str, count: int) -> Call:
        return Call("court", "anchor", poster, (_root(self.leaves(count)), count))

    def _open_anchored(self, challenger: str, n: int, count: int, good: bool) -> Call:
        leaves = self.leaves(count)
        path = _path(leaves, n) if n < count else []
        given = (astuple(self.receipt(n)), bytes([n]) * 65, _root(leaves), n, path if good else [*path, b"x" * 32])
        return Call("court", "openAnchored", challenger, given)

    def _contest(self, challenger: str, agent: bytes, parent: bytes) -> Call:
        return Call("lineage_court", "contest", challenger, (agent, parent, b"e" * 32))

    def _answer(self, sender: str) -> Call:
        return Call("lineage_court", "answer", sender, (self.dispute(("lineage_court",)),))

    def _uphold(self) -> Call:
        return Call("lineage_court", "uphold", "stranger", (self.dispute(("lineage_court",)),))

    def _draw(self, case: Any) -> Call:
        return Call(case[0], "draw", "stranger", (self.dispute(case),))

    def _commit(self, juror: str, case: Any, verdict: Verdict) -> Call:
        id_ = self.dispute(case)
        ballot = Ballot(verdict, Digest(b"e" * 32), b"s" * 32)
        self.sealed[case, juror] = ballot
        return Call(case[0], "commit", juror, (id_, ballot.commitment(id_, self._round(case), key(juror).address)))

    def _reveal(self, juror: str, case: Any, good: bool) -> Call:
        ballot = self.sealed.get((case, juror), Ballot(Verdict.HONEST, Digest(b"e" * 32), b"s" * 32))
        salt = ballot.salt if good else b"x" * 32
        return Call(case[0], "reveal", juror, (self.dispute(case), int(ballot.verdict), ballot.evidence, salt))

    def _vote(self, case: Any, verdicts: list[Verdict]) -> list[Call]:
        """Everybody who has a seat seals a vote, then opens it."""
        listed = self.view(case[0], "jurorsOf", self.dispute(case), self._round(case))[0]
        jurors = [name for name in OPERATORS if key(name).address in listed]
        sealed = [self._commit(juror, case, verdict) for juror, verdict in zip(jurors, verdicts, strict=False)]
        return sealed + [self._reveal(juror, case, True) for juror in jurors]

    def _tally(self, case: Any) -> Call:
        return Call(case[0], "tally", "stranger", (self.dispute(case),))

    def _appeal(self, who: str, case: Any) -> Call:
        return Call(case[0], "appeal", who, (self.dispute(case),))

    def _lodge(self, payer: str, operator: str, court: str, amount: int) -> Call:
        return Call(court, "lodge", payer, (key(operator).address, amount))

    def _take_back(self, who: str, operator: str, court: str, amount: int) -> Call:
        return Call(court, "takeBack", who, (key(operator).address, amount))

    def _execute(self, case: Any) -> Call:
        return Call(case[0], "execute", "stranger", (self.dispute(case),))

    def _collect_unpaid(self, who: str, contract: str) -> Call:
        return Call(contract, "collectUnpaid", who, (key(who).address,))

    def _round(self, case: Any) -> int:
        return int(self.view(case[0], "disputes", self.dispute(case))[0][3])

    # --- parameters ---

    def change(self, kind: str) -> tuple[str, tuple[Any, ...]]:
        """(verb, values) of a change of the parameters; the last two are out of bounds."""
        court, market = PARAMETERS.court, PARAMETERS.market
        match kind:
            case "longer":
                return "setCourt", astuple(
                    replace(court, commit_window=court.commit_window + 5, committee_size=5, quorum=3)
                )
            case "bond":
                return "setCourt", astuple(replace(court, bond=court.bond * 2, slash_bps=court.slash_bps - 1))
            case "slots":
                return "setMarket", astuple(replace(market, promotion_slots=1, share_deposit=market.share_deposit * 2))
            case "shorter":
                return "setCourt", astuple(replace(court, reveal_window=court.reveal_window - 1))
            case _:
                return "setMarket", astuple(replace(market, promotion_deposit=market.promotion_deposit * 11))

    def _operation(self, kind: str) -> tuple[Any, ...]:
        verb, values = self.change(kind)
        return self.stage.deployment.parameters, 0, abi.load("Parameters").call(verb, values), bytes(32), b"s" * 32

    def _schedule(self, sender: str, kind: str, delay: int) -> Call:
        return Call("timelock", "schedule", sender, (*self._operation(kind), delay))

    def _carry_out(self, kind: str) -> Call:
        return Call("timelock", "execute", "stranger", self._operation(kind))

    def _cancel_change(self, sender: str, kind: str) -> Call:
        types = ("address", "uint256", "bytes", "bytes32", "bytes32")
        return Call("timelock", "cancel", sender, (keccak256(abi.encode(types, self._operation(kind))),))

    def _hurry_the_timelock(self, sender: str) -> Call:
        return Call("timelock", "updateDelay", sender, (1,))

    def _set_directly(self, sender: str, kind: str) -> Call:
        verb, values = self.change(kind)
        return Call("parameters", verb, sender, (values,))


def court_views(area: CourtArea) -> list[Step]:
    people = [key(name).address for name in (*OPERATORS, *OWNERS, "alice", "maker", "weaver", "stranger")]
    contracts = [area.stage.address(name) for name in ("staking", *COURTS)]
    asked: list[Step] = [("coin", "totalSupply"), *(("coin", "balanceOf", who) for who in (*people, *contracts))]
    for who in people:
        asked += [("staking", view, who) for view in ("operators", "ownerOf", "slashable", "isActive")]
        asked += [("staking", "ownerAt", who, moment) for moment in (OPENING - 1, OPENING, area.now)]
        asked += [(court, view, who) for court in COURTS for view in ("unpaid", "suretyOf")]
    for place in range(len(OPERATORS) + 1):
        asked += [("staking", "operatorAt", place)]
        asked += [("staking", "candidate", place, moment) for moment in (OPENING, OPENING + 1, area.now)]
    asked += [("staking", "operatorCount"), ("staking", "operatorCountAt", OPENING), ("court", "anchors")]
    cases = [("court", challenger, n) for challenger in CHALLENGERS for n in range(3)] + [("lineage_court",)]
    for case in cases:
        id_ = area.dispute(case)
        asked += [(case[0], "disputes", id_), (case[0], "paramsOf", id_)]
        for round_ in range(1, 4):
            asked += [(case[0], "jurorsOf", id_, round_)]
            asked += [(case[0], "votes", id_, round_, key(name).address) for name in OPERATORS[:4]]
    asked += [("court", "anchorOf", key("host1").address, _root(area.leaves(count))) for count in (1, 2, 3)]
    asked += [("lineage_court", "contests", area.dispute(("lineage_court",)))]
    asked += [("registry", "agents", agent) for agent in DIGESTS]
    return asked


def governance_views(area: CourtArea) -> list[Step]:
    asked: list[Step] = [("parameters", view) for view in ("court", "market", "longestDispute", "oldestReceipt")]
    asked += [("parameters", view, version) for view in ("courtAt", "marketAt") for version in range(3)]
    asked += [(court, "params") for court in COURTS] + [("timelock", "getMinDelay")]
    types = ("address", "uint256", "bytes", "bytes32", "bytes32")
    for kind in ("longer", "shorter", "bond", "slots", "poor"):
        id_ = keccak256(abi.encode(types, area._operation(kind)))
        asked += [("timelock", view, id_) for view in ("getTimestamp", "getOperationState", "isOperationReady")]
    return asked


def _root(leaves: list[bytes]) -> bytes:
    """RFC 6962 by its own definition: split at the largest power of two below the number of leaves."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + _root(leaves[:k]) + _root(leaves[k:]))


def _path(leaves: list[bytes], n: int) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return [*_path(leaves[:k], n), _root(leaves[k:])] if n < k else [*_path(leaves[k:], n - k), _root(leaves[:k])]
