"""Peer to peer: offers from any peer that knows some, jobs straight to the hosts, paid from one's own deposit.

Runs the same dispatcher as a coordinator's gateway; holds the purse, so it must be the only program on its home folder.
"""

import asyncio
import random
import re
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lading.answers import Bill, Delta, Model, Notice, Piece, Vectors
from lading.core.request import CALL_TOKENS, call_request, chat_request
from lading.dispatch import Ask, Directory, Dispatcher, Ended, Moved, Payer, Purse, Rows
from lading.dispatch import Piece as Tokens
from lading.dispatch.dispatcher import Event
from lading.dispatch.scout import ask_for_quotes
from lading.errors import BadRequest, NoHost, UnknownJob, UnknownModel
from lading.lock import FolderLock
from lading_contracts.deployment import Contracts, Deployment
from lading_contracts.registry import Terms
from lading_contracts.rpc import open_chain
from lading_net.dialling import dial_any
from lading_net.errors import BadEndpoint, DialFailed, NetError, UnknownProtocol
from lading_net.messages import MessageStream
from lading_net.ports import Transport
from lading_protocol.audit import assurance
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, AgentId, JobId, TermsId, Wei, from_hex, to_hex
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import OFFERS, Advert, Adverts, EmbedRequest, WantOffers
from lading_protocol.offers import KnownOffer, check_advert
from lading_protocol.summaries import MOST_ELSEWHERE, Endpoints, WantQuotes

if TYPE_CHECKING:
    from lading.core.options import Options

_AGENT = re.compile("0x[0-9a-f]{64}")
_adverts = msgspec.msgpack.Decoder(Adverts)
FRESH_SECONDS = 30.0
# A sunset is announced days ahead.
TERMS_SECONDS = 3600.0
KEPT_JOBS = 64
QUOTE_SECONDS = 3.0
# Of a question for quotes before the request is known: tokens of its prompt and of its answer, and the whole length.
USUAL = (2000, 500, 0)


class PeerRoute:
    def __init__(
        self,
        transport: Transport,
        contracts: Contracts,
        key: PrivateKey,
        peers: Sequence[str],
        purse: Purse,
        lock: FolderLock | None = None,
    ) -> None:
        self._transport = transport
        self._contracts = contracts
        self._key = key
        self._peers = peers
        self._purse = purse
        self._lock = lock
        self._ended: dict[JobId, Ended] = {}
        self._asked_at = -FRESH_SECONDS
        self._terms: dict[TermsId, tuple[float, Terms | None]] = {}
        self._directory = Directory(needs_beats=False)
        self._dispatcher = Dispatcher(
            transport, self._directory, purse, contracts.deployment, time.time, random.SystemRandom()
        )

    @classmethod
    async def open(
        cls,
        record: Deployment,
        chain_url: str,
        key: PrivateKey,
        peers: Sequence[str],
        home: Path,
        *,
        network_key: str = "",
    ) -> "PeerRoute":
        from lading_net import private
        from lading_net.direct import DirectSettings, DirectTransport, Puncher

        network = private.network_key(network_key)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Two programs that sign from one purse would promise the same wei twice.
        lock = FolderLock(home / "purse.lock")
        try:
            purse = Purse(home / "purse.sqlite", record.settlement_domain)
        except BaseException:
            lock.release()
            raise
        chain = open_chain(chain_url, record.chain_id)
        transport = DirectTransport(key, DirectSettings(network=network))
        Puncher(transport).open()
        return cls(transport, Contracts(chain, record), key, peers, purse, lock)

    async def models(self) -> list[Model]:
        await self._refresh()
        groups: dict[tuple[str, bytes], list[KnownOffer]] = {}
        for known in self._directory.offers():
            groups.setdefault((known.detail.name, known.agent), []).append(known)
        return [
            Model(
                name=name,
                agent=to_hex(agent),
                hosts=len({known.host for known in offers}),
                price_in=min(known.price.input for known in offers),
                price_out=min(known.price.output for known in offers),
                context=offers[0].detail.context,
                operations=offers[0].detail.operations,
                devices=tuple(sorted({known.detail.device for known in offers} - {""})),
                assurance=tuple(sorted({assurance(known.detail.numeric) for known in offers})),
            )
            for (name, agent), offers in sorted(groups.items())
        ]

    async def chat(self, model: str, messages: Sequence[tuple[str, str]], options: "Options") -> AsyncIterator[Piece]:
        offer = await self._find(model, "chat")
        request = chat_request(
            offer.agent,
            messages,
            options,
            options.max_tokens if options.max_tokens is not None else max(1, offer.detail.context // 2),
            random.SystemRandom().randbytes(32),
        )
        async for piece in self._stream(Ask(offer.agent, request)):
            yield piece

    async def call(self, model: str, operation: str, given: Any, max_tokens: int | None) -> AsyncIterator[Piece]:
        offer = await self._find(model, operation)
        usual = max(1, min(CALL_TOKENS, offer.detail.context // 2))
        request = call_request(operation, given, usual if max_tokens is None else max_tokens)
        async for piece in self._stream(Ask(offer.agent, request)):
            yield piece

    async def _stream(self, ask: Ask) -> AsyncIterator[Piece]:
        async for event in self._run(ask):
            match event:
                case Tokens(text=text) if text:
                    yield Delta(text)
                case Moved(host, code, reason):
                    yield Notice(f"{to_hex(host)} dropped out ({code}: {reason}); going on elsewhere")
                case Ended():
                    yield _bill(event)
                case _:
                    pass

    async def embed(self, model: str, inputs: Sequence[str]) -> Vectors:
        offer = await self._find(model, "embed")
        rows: list[tuple[float, ...]] = []
        async for event in self._run(Ask(offer.agent, EmbedRequest(tuple(inputs)))):
            match event:
                case Rows(width, data):
                    rows = [struct.unpack_from(f"<{width}f", data, at) for at in range(0, len(data), 4 * width)]
                case Ended():
                    return Vectors(tuple(rows), _bill(event))
                case _:
                    pass
        raise NoHost(["the answer never ended"])

    async def receipts(self, job: str) -> dict[str, Any]:
        """What the hosts signed for a job of this client, and the token ids that it covers. Raises UnknownJob."""
        ended = self._ended.get(JobId(from_hex(job, 32)))
        if ended is None:
            raise UnknownJob(f"No job {job} was run here.")
        signed = [part for part in ended.parts if part.receipt]
        receipts = [to_hex(part.receipt) for part in signed]
        marks = [to_hex(b"".join(part.marks)) for part in signed]
        return {"job": job, "receipts": receipts, "marks": marks, "ids": list(ended.emitted)}

    async def close(self) -> None:
        await self._dispatcher.close()
        await self._transport.close()
        self._purse.close()
        if self._lock is not None:
            self._lock.release()
        chain: Any = self._contracts.chain
        await chain.close()

    async def _run(self, ask: Ask) -> AsyncGenerator[Event, None]:
        """The job's events, with refusals as a gateway words them; a caller that stops early cancels the job."""
        try:
            async with aclosing(self._dispatcher.run(await self._payer(), ask)) as events:
                async for event in events:
                    if isinstance(event, Ended):
                        self._keep(event)
                    yield event
        except BadRequest as error:
            if error.code != "too_long":
                raise
            hint = "Shorten it or ask for less."
            raise BadRequest(error.message, hint=hint, code="context_length_exceeded") from error

    def _keep(self, ended: Ended) -> None:
        self._ended[ended.job] = ended
        while len(self._ended) > KEPT_JOBS:
            del self._ended[next(iter(self._ended))]

    async def _payer(self) -> Payer:
        """What may still be spent: the free deposit and what is locked already."""
        account = await self._contracts.settlement.account(self._key.address)
        return Payer(self._key, self._key.address, Wei(account.free + self._purse.locked(self._key.address)))

    async def _find(self, model: str, operation: str) -> KnownOffer:
        """Any offer of the model. Raises UnknownModel."""
        try:
            await self._refresh()
        except DialFailed:
            if not _AGENT.fullmatch(model):
                raise
        if _AGENT.fullmatch(model) and not self._directory.candidates(AgentId(from_hex(model, 32))):
            await self._look_for(AgentId(from_hex(model, 32)), operation)
        for known in sorted(self._directory.offers(), key=lambda known: -known.offer.sequence):
            if model in (known.detail.name, to_hex(known.agent)):
                return known
        raise UnknownModel(f"No peer knows an offer for {model!r}.")

    async def _look_for(self, agent: AgentId, operation: str) -> None:
        """Asks coordinators among the peers for quotes, and those that they name; and where nobody has the agent, the
        peers' control planes for hosts of it, and the hosts for their offers. Raises DialFailed."""
        want = WantQuotes(agent, operation, *USUAL)
        named = await asyncio.gather(*(self._quotes((one,), want) for one in self._peers))
        if not self._directory.candidates(agent):
            elsewhere = dict.fromkeys(endpoints for some in named for endpoints in some)
            await asyncio.gather(*(self._quotes(endpoints, want) for endpoints in list(elsewhere)[:MOST_ELSEWHERE]))
        if self._directory.candidates(agent):
            return
        from lading_net.direct import DirectTransport
        from lading_net.gossip.finding import find_hosts

        if not isinstance(self._transport, DirectTransport):
            return
        found = await find_hosts(self._transport, self._peers, agent)
        await asyncio.gather(*(self._ask(one.texts, one.peer.address) for one in found), return_exceptions=True)

    async def _quotes(self, endpoints: Sequence[str], want: WantQuotes) -> tuple[Endpoints, ...]:
        """Files what a coordinator quotes; who else has it, as it says. Nothing from who is no coordinator."""
        try:
            async with asyncio.timeout(QUOTE_SECONDS):
                held = self._transport.links()
                link = await dial_any(self._transport, endpoints, None)
                try:
                    answer = await ask_for_quotes(link, want)
                except UnknownProtocol:
                    if link not in held:  # as in _ask; a link that was there may carry jobs
                        await link.close()
                    raise
        except (NetError, TimeoutError):
            return ()
        await self._take([quote.advert for quote in answer.quotes])
        return answer.elsewhere

    async def _refresh(self) -> None:
        if time.monotonic() - self._asked_at < FRESH_SECONDS:
            return
        answers = await asyncio.gather(*(self._ask((each,)) for each in self._peers), return_exceptions=True)
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        for failure in failures:
            if isinstance(failure, BadEndpoint) or not isinstance(failure, NetError | TimeoutError):
                raise failure
        if failures and len(failures) == len(answers):
            last = str(failures[-1]) or "no answer within 10 s"
            raise DialFailed(f"No peer answers ({len(failures)} asked); the last one: {last}", hint="")
        self._asked_at = time.monotonic()

    async def _pays_the_right_people(self, known: KnownOffer) -> bool:
        """Whether its terms are those of its agent: a host could name a table of its own instead of the makers'."""
        asked_at, found = self._terms.get(known.terms, (-TERMS_SECONDS, None))
        if time.monotonic() - asked_at >= TERMS_SECONDS:
            found = await self._contracts.registry.terms(known.terms)
            self._terms[known.terms] = time.monotonic(), found
        return found is not None and found.belongs_to(known.agent)

    async def _ask(self, endpoints: Sequence[str], expect: Address | None = None) -> None:
        async with asyncio.timeout(10):
            link = await dial_any(self._transport, endpoints, expect, 10)
            messages: MessageStream[Adverts] = MessageStream(await link.open(OFFERS), _adverts)
            messages.send(WantOffers())
            try:
                answer = await messages.recv()
            except UnknownProtocol:
                await link.close()  # somebody's control plane: its owner's direct link, of the same id, is elsewhere
                raise
            await messages.stream.close()
        if answer is None:
            raise NetError(f"{endpoints[0]} sent no offers.")
        await self._take(answer.adverts)

    async def _take(self, adverts: Sequence[Advert]) -> None:
        for advert in adverts:
            try:
                known = check_advert(advert, self._contracts.deployment.settlement_domain, time.time())
                if await self._pays_the_right_people(known):
                    self._directory.put(known)
                    _, terms = self._terms[known.terms]
                    self._directory.sunset(known.terms, 0 if terms is None else terms.sunset_at)
            except LadingError:
                continue  # a peer may hold stale adverts; the good ones count


def _bill(ended: Ended) -> Bill:
    return Bill(
        finish=ended.finish.name.lower(),
        prompt_tokens=ended.prompt_tokens,
        output_tokens=ended.output_tokens,
        cost=ended.cost,
        job=to_hex(ended.job),
        hosts=tuple(dict.fromkeys(to_hex(part.host) for part in ended.parts)),
    )
