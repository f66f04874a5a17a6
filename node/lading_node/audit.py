"""Re-running other hosts' work: answers Check on the audit stream, and gives jurors their findings.

Owns the way from a case to a Finding through one of this node's engines: the re-run is done and sealed before the
host's own numbers are seen. Fetches an agent that it lacks, or abstains with a reason. Votes are jury's business.
"""

import asyncio
import logging
import struct
from collections.abc import Sequence
from math import inf
from weakref import WeakValueDictionary

import msgspec

from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_net.sketches import receive_sketch, send_sketch
from lading_node.agents import Agent
from lading_node.core.casework import conclude, holds, mismatch, opening_size, rerun_chat, rerun_embed
from lading_node.engines.port import Embed, Embedded, Engine, Failed, Score, Scored
from lading_node.errors import CaseMismatch, NodeError
from lading_node.fees import Takings
from lading_node.ports import Doors, Package
from lading_protocol import audit
from lading_protocol.audit import Tolerance
from lading_protocol.calibration import find, limits, spec_hash
from lading_protocol.eip712 import unpack
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, AgentId, short
from lading_protocol.messages import (
    MAX_FRAME,
    Case,
    Check,
    EmbedRequest,
    Fee,
    Finding,
    Refuse,
    Reveal,
    Sealed,
    Sketch,
    ToAuditor,
    Unopened,
)
from lading_protocol.receipts import Receipt, SignedReceipt, receipt_leaf

log = logging.getLogger(__name__)

CHECKS_AT_ONCE = 2
CHECK_SECONDS = 30.0
# The asker has the host's opening to fetch, and may have to ask twice.
OPENING_SECONDS = 120.0

_LARGEST = 3e38

_to_auditor = msgspec.msgpack.Decoder(ToAuditor)


class Abstained(NodeError):
    """This node cannot say: it lacks the agent, or its engine did not do the re-run."""

    code = "abstained"
    hint = "Ask another auditor."


class Rerun(msgspec.Struct, frozen=True):
    """A case that this node has worked through, before it saw what the host opens."""

    case: Case
    receipt: SignedReceipt
    answer: Scored | Embedded | Failed
    limits: Tolerance | None

    @property
    def margins(self) -> bytes:
        """One little-endian float32 an output token; what is too large for one is infinite."""
        if not isinstance(self.answer, Scored):
            return b""
        margins = [margin if margin <= _LARGEST else inf for margin in self.answer.margins]
        return struct.pack(f"<{len(margins)}f", *margins)

    @property
    def sketch(self) -> bytes:
        """Our own counterpart of what the host opens."""
        match self.answer:
            case Scored(sketch=own):
                return own
            case Embedded(vectors=rows):
                return b"".join(rows)
            case _:
                return b""

    @property
    def opening_size(self) -> int | None:
        return opening_size(self.case, self.receipt.value, self.answer)

    def finding(self, opened: bytes | None) -> Finding:
        """`opened` is the host's sketch or vectors; None, or what the receipt does not commit to, leaves the tokens."""
        claimed = self.receipt.value
        if opened is not None and not holds(self.case, claimed, opened):
            opened = None
        match self.answer:
            case Failed(message=why):
                # Prompt, answer and context are the manifest's and the request's: what we refuse, nobody could serve.
                rerun = audit.Rerun(claimed.prompt_hash, claimed.prompt_tokens, impossible=why)
            case Scored():
                rerun = rerun_chat(self.answer, self.case, claimed, opened)
            case Embedded():
                if opened is None:
                    raise CaseMismatch("The vectors were not shown, or the receipt does not commit to them.")
                rerun = rerun_embed(self.answer, opened)
        return conclude(self.receipt, rerun, self.limits)


class Auditor:
    def __init__(self, doors: Doors, agents: Sequence[Agent], takings: Takings) -> None:
        self._doors = doors
        self._agents = agents
        self._takings = takings
        self._turns = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._duty = asyncio.Semaphore(1)
        # A line lasts as long as a stream stands in it.
        self._lines: WeakValueDictionary[Address, asyncio.Lock] = WeakValueDictionary()
        self._count = 0
        self.checked = 0

    async def serve(self, stream: Stream) -> None:
        """The handler of the audit protocol: one Finding or Refuse for every Check, one after the other for a peer.

        Anyone may ask, so only agents that this node serves are re-run here; a juror's duty goes past it.
        """
        peer = Address(stream.peer)
        line = self._lines.setdefault(peer, asyncio.Lock())
        messages: MessageStream[ToAuditor] = MessageStream(stream, _to_auditor)
        try:
            async with line:
                while (ask := await self._next(messages)) is not None:
                    await (self._paid(ask, peer) if isinstance(ask, Fee) else self._answer(messages, ask, peer))
        except TimeoutError:
            return

    async def _next(self, messages: MessageStream[ToAuditor]) -> ToAuditor | None:
        """Raises TimeoutError."""
        async with asyncio.timeout(CHECK_SECONDS):
            return await messages.recv()

    async def _paid(self, fee: Fee, peer: Address) -> None:
        try:
            await self._takings.take(fee, peer)
        except LadingError as error:
            log.warning("a fee of %s is not good: %s", short(peer), error)

    async def _answer(self, messages: MessageStream[ToAuditor], ask: ToAuditor, peer: Address) -> None:
        """One case: our numbers are sealed before the host's are seen, and shown after."""
        try:
            if not isinstance(ask, Check):
                raise CaseMismatch("Something was opened that nobody asked for.")
            self._takings.admit(peer)
            async with self._turns:
                rerun = await self._rerun(ask.case, only_served=True)
            salt = self._doors.rng.randbytes(32)
            sealed = audit.seal(salt, receipt_leaf(rerun.receipt), rerun.margins, rerun.sketch)
            messages.send(Sealed(sealed))
            await messages.drain()
            finding = rerun.finding(await self._opened(messages, rerun))
        except NetError:
            raise
        except LadingError as error:
            messages.send(Refuse(error.code, str(error)[:2000]))
            await messages.drain()
            return
        self.checked += 1
        self._takings.found(peer)
        messages.send(finding)
        messages.send(Reveal(salt, rerun.margins))
        await send_sketch(messages, rerun.sketch)

    async def _opened(self, messages: MessageStream[ToAuditor], rerun: Rerun) -> bytes | None:
        async with asyncio.timeout(OPENING_SECONDS):
            match await messages.recv():
                case Unopened():
                    return None
                case Sketch() as first:
                    size = rerun.opening_size
                    told = min(len(first.data) + first.left, MAX_FRAME)
                    return await receive_sketch(messages, first, told if size is None else size)
                case _:
                    raise CaseMismatch("The host's opening, or word that there is none, was to come next.")

    async def examine(self, case: Case, opened: bytes | None) -> Finding:
        """A juror's duty: re-run a case, with whatever agent it takes. Raises CaseMismatch, Abstained, BadMessage,
        BadSignature."""
        async with self._duty:
            rerun = await self._rerun(case, only_served=False)
            self.checked += 1
            return rerun.finding(opened if opened is not None else case.vectors or None)

    async def _rerun(self, case: Case, *, only_served: bool) -> Rerun:
        receipt = unpack(Receipt, case.receipt)
        receipt.check(self._doors.contracts.deployment.court_domain, receipt.value.host)
        if problem := mismatch(case, receipt.value):
            raise CaseMismatch(problem)
        agent = AgentId(receipt.value.agent)
        served = next((one for one in self._agents if one.serving.agent == agent and one.engine is not None), None)
        if served is not None and served.engine is not None and served.package is not None:
            return await self._ask(served.engine, served.package, case, receipt)
        if only_served:
            raise Abstained(f"This node does not serve agent {short(agent)}.")
        package = await self._package(agent)
        engine = self._doors.engine(package.spec)
        try:
            await engine.start()
            return await self._ask(engine, package, case, receipt)
        finally:
            await engine.stop()

    async def _package(self, agent: AgentId) -> Package:
        try:
            return await self._doors.packages.get(agent, log.info)
        except LadingError as error:
            raise Abstained(f"This node does not have agent {short(agent)}: {error.message}") from error

    async def _ask(self, engine: Engine, package: Package, case: Case, receipt: SignedReceipt) -> Rerun:
        self._count += 1
        id = f"audit:{self._count}"
        request, claimed = case.request, receipt.value
        numeric, spec = package.runtime.numeric, spec_hash(package.manifest)
        answer: Scored | Embedded | Failed
        if not isinstance(request, EmbedRequest):
            table = find(self._doors.tables, spec, numeric, numeric)
            exact = table is not None and table.exact
            answer = await engine.score(Score(id, request, case.emitted, claimed.first, claimed.job, exact))
        else:
            answer = await engine.embed(Embed(id, request))
        if isinstance(answer, Failed) and answer.code != "context_exceeded":
            raise Abstained(f"The re-run failed: {answer.message}")
        return Rerun(case, receipt, answer, limits(self._doors.tables, spec, numeric, numeric))
