"""Re-running other hosts' work: answers Check on the audit stream, and gives jurors their findings.

Owns the way from a case to a Finding through one of this node's engines; fetches an agent that it lacks, or abstains
with a reason. Votes are jury's business.
"""

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_node.agents import Agent
from lading_node.core.casework import conclude, mismatch, rerun_chat, rerun_embed
from lading_node.engines.port import Embed, Embedded, Engine, Failed, Score, Scored
from lading_node.errors import CaseMismatch, NodeError
from lading_node.ports import Doors, Package
from lading_protocol.audit import Rerun
from lading_protocol.eip712 import unpack
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, AgentId, short
from lading_protocol.messages import Case, Check, EmbedRequest, Finding, Refuse
from lading_protocol.receipts import Receipt, SignedReceipt

log = logging.getLogger(__name__)

CHECKS_AT_ONCE = 2
CHECK_SECONDS = 30.0

_check = msgspec.msgpack.Decoder(Check)


class Abstained(NodeError):
    """This node cannot say: it lacks the agent, or its engine did not do the re-run."""

    code = "abstained"
    hint = "Ask another auditor."


class Auditor:
    def __init__(self, doors: Doors, agents: Sequence[Agent]) -> None:
        self._doors = doors
        self._agents = agents
        self._turns = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._duty = asyncio.Semaphore(1)
        self._lines: dict[Address, asyncio.Lock] = {}
        self._count = 0
        self.checked = 0

    async def serve(self, stream: Stream) -> None:
        """The handler of the audit protocol: one Finding or Refuse for every Check, one after the other for a peer.

        Anyone may ask, so only agents that this node serves are re-run here; a juror's duty goes past it.
        """
        peer = Address(stream.peer)
        line = self._lines.setdefault(peer, asyncio.Lock())
        try:
            async with line:
                await self._serve(stream)
        finally:
            if not line.locked():
                self._lines.pop(peer, None)

    async def _serve(self, stream: Stream) -> None:
        messages: MessageStream[Check] = MessageStream(stream, _check)
        while True:
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    ask = await messages.recv()
            except TimeoutError:
                return
            if ask is None:
                return
            try:
                async with self._turns:
                    answer: Finding | Refuse = await self._examine(ask.case, only_served=True)
            except NetError:
                raise
            except LadingError as error:
                answer = Refuse(error.code, str(error)[:2000])
            messages.send(answer)
            await messages.drain()

    async def examine(self, case: Case) -> Finding:
        """A juror's duty: re-run a case, with whatever agent it takes. Raises CaseMismatch, Abstained, BadMessage,
        BadSignature."""
        async with self._duty:
            return await self._examine(case, only_served=False)

    async def _examine(self, case: Case, *, only_served: bool) -> Finding:
        receipt = unpack(Receipt, case.receipt)
        receipt.check(self._doors.contracts.deployment.court_domain, receipt.value.host)
        if problem := mismatch(case, receipt.value):
            raise CaseMismatch(problem)
        finding = await self._rerun(case, receipt, only_served=only_served)
        self.checked += 1
        return finding

    async def _rerun(self, case: Case, receipt: SignedReceipt, *, only_served: bool) -> Finding:
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

    async def _ask(self, engine: Engine, package: Package, case: Case, receipt: SignedReceipt) -> Finding:
        self._count += 1
        id = f"audit:{self._count}"
        request = case.request
        answer: Scored | Embedded | Failed
        if not isinstance(request, EmbedRequest):
            answer = await engine.score(Score(id, request, case.emitted, receipt.value.first))
        else:
            answer = await engine.embed(Embed(id, request))
        match answer:
            case Failed(code="context_exceeded", message=why):
                # Prompt, answer and context are the manifest's and the request's: what we refuse, nobody could serve.
                claimed = receipt.value
                rerun = Rerun(claimed.prompt_hash, claimed.prompt_tokens, impossible=why)
            case Failed(message=why):
                raise Abstained(f"The re-run failed: {why}")
            case Scored():
                rerun = rerun_chat(answer, case, receipt.value)
            case Embedded():
                rerun = rerun_embed(answer, case)
        return conclude(receipt, rerun, package.runtime.numeric)
