"""The Gossip port over libp2p's gossipsub: this peer's links, its streams, and the tick that drives its mesh.

Runs on the program's own loop. What a message means is nobody's here; whom to connect to is `seeking`'s.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections import Counter
from collections.abc import Collection, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol, assert_never

from lading_net.core.crowds import Crowd
from lading_net.core.guard import Limits
from lading_net.core.kademlia import (
    ADD_PROVIDER,
    GET_PROVIDERS,
    KAD,
    LONGEST_QUESTION,
    NEAREST,
    PING,
    PUT_VALUE,
    Contact,
    Question,
    Table,
    decode_question,
    encode_answer,
    spot,
)
from lading_net.core.mesh import Blame, Deliver, Mesh, Send
from lading_net.core.places import place
from lading_net.core.providers import Providers, provider_key
from lading_net.core.quotas import Quotas, Rate
from lading_net.core.rpc import MAX_GOSSIP_BYTES, MESHSUB, TOLERATED_RPC, Cutter, decode_rpc, sign
from lading_net.direct import DirectLink, DirectSettings, DirectStream, DirectTransport
from lading_net.direct.greeting import introduced
from lading_net.direct.manners import IDENTIFY, PUSH, introduction
from lading_net.direct.manners import PING as PINGED
from lading_net.errors import BadEndpoint, LinkClosed, MessageTooLarge, NetError, ProtocolViolation
from lading_net.gossip.asking import read_piece
from lading_net.gossip.providing import Providing
from lading_net.gossip.reaching import Reach
from lading_net.gossip.seeking import Seeker
from lading_net.gossip.voices import Voice, Voices
from lading_net.peer import Endpoint
from lading_net.ports import Address, Link, Stream
from lading_net.private import NetworkKey
from lading_net.subscription import Subscription, Subscriptions
from lading_protocol.ids import AgentId
from lading_protocol.keys import PrivateKey

if TYPE_CHECKING:
    from lading_net.gossip.lan import Lan

TICK_SECONDS = 1.0
MOST_LINKS = 256
_ROOM = 32
"""Links that may come while those whose places they take are still going."""

MOST_KEY = 64
"""Bytes of a key that is provided: a multihash."""

MOST_ANSWERS = 8
"""Streams of one neighbour with questions."""

MOST_BYTES = 64 * 1024 * 1024
"""Arrived and unread, or written and unsent, on all links."""

TURN_SECONDS = 0.005
"""For which neighbours are heard before the loop goes on to something else."""

KEEPALIVE_SECONDS = 30.0
MEETING_SECONDS = 10.0
QUESTIONS = Rate(burst=32, second=4)
"""Of one neighbour, on Kademlia's streams."""

log = logging.getLogger(__name__)


class Secret(Protocol):
    """Anything that holds an operator key, such as `lading_protocol.keys.PrivateKey`."""

    @property
    def secret(self) -> bytes: ...


class MeshGossip:
    """A peer that gossips. `bootstrap` needs one reachable peer; the others are found through it.

    `announce` replaces the addresses told to others, for a host behind a port forwarding or in a container;
    `max_peers` is how many it connects to by itself. With a `network` key it is a member of this private network, and
    of no other. `lan` is this machine's address in a local network where peers are looked for by multicast, "" for
    none. Raises BadEndpoint for an address without a meaning.
    """

    def __init__(
        self,
        secret: Secret | bytes,
        listen: str,
        bootstrap: Sequence[str] = (),
        *,
        announce: Sequence[str] = (),
        max_peers: int = 12,
        lan: str = "",
        network: NetworkKey | None = None,
    ) -> None:
        self._key = PrivateKey(secret if isinstance(secret, bytes) else secret.secret)
        settings = DirectSettings(
            keepalive=KEEPALIVE_SECONDS,
            memory=MOST_BYTES,
            queued=MOST_BYTES,
            guard=Limits(links=MOST_LINKS + _ROOM),
            network=network,
        )
        self._transport = DirectTransport(self._key, settings)
        self.peer_id = self._transport.peer_id
        self._listen = Endpoint.parse(listen)
        self._bootstrap = tuple(_with_peer(text) for text in bootstrap)
        self._announce = tuple(Endpoint.parse(text) for text in announce)
        self._lan_address = lan
        self._lan: Lan | None = None
        self._readers = Subscriptions()
        self._mesh = Mesh(self.peer_id.address, random.Random(secrets.randbits(64)))
        self._voices = Voices()
        self._crowd: Crowd[DirectLink] = Crowd(MOST_LINKS)
        self._table = Table(self.peer_id)
        self._reach = Reach(self._transport, self._table)
        self._seeker = Seeker(self._transport, self._reach, max_peers, lambda: self._mesh.starved)
        self._providers = Providers()
        self._providing = Providing(self._transport, self._seeker, self._providers)
        self._questions: Quotas[Address] = Quotas(QUESTIONS)
        self._seqno = time.time_ns()  # goes on where it was after a restart
        self._answering: Counter[Address] = Counter()
        self._heard: dict[Address, dict[DirectLink, Stream]] = {}
        self._met = asyncio.Event()
        self._hearing = asyncio.Lock()
        self._spent = 0.0  # seconds of this turn of the loop, on hearing neighbours
        self._tasks: set[asyncio.Task[None]] = set()
        self._address = ""
        self._closed = False

    @property
    def address(self) -> str:
        """The full multiaddr, with the port that was bound and /p2p/; empty before start()."""
        return self._address

    @property
    def lost(self) -> int:
        """Messages that neighbours sent or should have got, and that were dropped because there were too many."""
        return self._mesh.dropped.total() + self._voices.lost.total()

    async def start(self) -> None:
        """Returns once it listens, without waiting for any peer. Raises PortInUse, ListenFailed."""
        if self._closed or self._address:
            raise LinkClosed("The gossip host was started before.")
        for protocol, handler in ((MESHSUB, self._hear), (KAD, self._answer), (IDENTIFY, self._introduce)):
            self._transport.handle(protocol, handler)
        self._transport.on_link(self._linked)
        try:
            self._address = await self._transport.listen(str(self._listen))
            self._run(self._seeker.run(self._bootstrap))
            self._run(self._keep_ticking())
            self._run(self._providing.run())
            if self._lan_address:
                await self._look_nearby()
        except BaseException:
            await self.close()
            raise

    async def publish(self, topic: str, data: bytes) -> None:
        if self._closed or not self._address:
            raise LinkClosed("This peer has left the gossip network.")
        if len(data) > MAX_GOSSIP_BYTES:
            raise MessageTooLarge(f"{len(data)} bytes are too many for gossip; the limit is {MAX_GOSSIP_BYTES}.")
        self._seqno += 1
        self._mesh.publish(sign(self._key, topic, bytes(data), self._seqno.to_bytes(8, "big")), self._now())
        self._act()

    def subscribe(self, topic: str) -> Subscription:
        self._mesh.subscribe(topic, self._now())
        self._act()
        return self._readers.add(topic)

    def leave(self, topic: str) -> None:
        self._readers.leave(topic)
        self._mesh.leave(topic, self._now())
        self._act()

    def provide(self, agents: Collection[AgentId], endpoints: Sequence[str]) -> None:
        self._providing.set(map(provider_key, agents), endpoints)

    def peers(self) -> list[Address]:
        return [] if self._closed else self._voices.peers()

    async def close(self) -> None:
        self._closed = True
        self._readers.close()
        if self._lan is not None:
            await self._lan.close()
            self._lan = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reach.close()
        await self._transport.close()

    # -- neighbours

    def _linked(self, link: Link) -> None:
        assert isinstance(link, DirectLink)
        where = place(link.seen_at[0] if link.seen_at else "")
        leaving = self._crowd.enter(link, where, lambda one: not one.dialled)
        for one in leaving:
            one.turn_away("Others needed its place.")
        if link not in leaving:
            self._run(self._attend(link))

    async def _attend(self, link: DirectLink) -> None:
        try:
            if self._transport.link_to(link.peer) is link:
                await self._meet(link)
            await link.closed.wait()
        finally:
            self._crowd.leave(link)
            if self._voices.drop(link.peer, link) and self._transport.link_to(link.peer) is None:
                self._mesh.part(link.peer)
        if (other := self._transport.link_to(link.peer)) is not None and link.peer not in self._voices:
            await self._meet(other)
        self._seeker.changed()

    async def _meet(self, link: DirectLink) -> None:
        try:
            await self._speak(link)
            await self._learn(link)
        except NetError as error:
            log.debug("0x%s says nothing of itself: %s", link.peer.hex(), error.message)

    async def _speak(self, link: DirectLink) -> None:
        """Greets the peer on this link, whichever other there was."""
        voice = Voice(link)
        self._voices.put(link.peer, voice)
        self._mesh.join(link.peer, link.dialled, self._now())
        self._act()
        self._met.set()
        self._met = asyncio.Event()
        self._seeker.changed()
        await voice.open()

    async def _learn(self, link: DirectLink) -> None:
        """Asks who it is, and remembers whom we can lead others to."""
        told = await introduced(link)
        if KAD not in told.protocols or link.seen_at is None:
            return
        linked = map(self._transport.link_to, self._voices.peers())
        await self._reach.learn(link, told.endpoints, {one.peer_id for one in linked if one is not None})

    async def _hear(self, stream: Stream) -> None:
        """What one neighbour says, until it ends. One stream on each of its links: each may hold a piece that is not
        whole. Where both dialled there may be two, and rust-libp2p speaks on both, but says once what it listens to."""
        assert isinstance(stream, DirectStream)
        await self._until_met(stream.peer)
        spoken = self._heard.setdefault(stream.peer, {})
        older = spoken.get(stream.link)
        if older is not None:
            older.reset()
        if older is not None or not spoken:
            self._mesh.anew(stream.peer)
        spoken[stream.link] = stream
        cutter = Cutter(tolerated=TOLERATED_RPC)
        try:
            while data := await stream.read():
                cutter.add(data)
                await self._take_in(stream.peer, cutter)
        except ProtocolViolation as error:
            self._punish(Blame(stream.peer, self._transport.guard.limits.violation, error.message))
            raise
        finally:
            if spoken.get(stream.link) is stream:
                del spoken[stream.link]
            if not spoken and self._heard.get(stream.peer) is spoken:
                del self._heard[stream.peer]

    async def _take_in(self, peer: Address, cutter: Cutter) -> None:
        """What is whole of what arrived. Who says too much is not read meanwhile, and whatever all of them say, others
        on this loop have their turn in between."""
        while (piece := cutter.take()) is not None:
            if (pause := self._mesh.wait(peer, cutter.last, self._now())) > 0:
                await asyncio.sleep(pause)
            async with self._hearing:  # each in its turn, a piece at a time
                while self._spent > TURN_SECONDS:  # noqa: ASYNC110  # until the loop has come round
                    await asyncio.sleep(0)
                if not self._spent:
                    asyncio.get_running_loop().call_soon(self._next_turn)
                began = self._now()
                self._mesh.hear(peer, decode_rpc(piece), cutter.last, began)
                self._act()
                self._spent += self._now() - began

    def _next_turn(self) -> None:
        self._spent = 0.0

    async def _until_met(self, peer: Address) -> None:
        """Its first words may come before the link is told of."""
        try:
            async with asyncio.timeout(MEETING_SECONDS):
                while peer not in self._voices:
                    await self._met.wait()
        except TimeoutError:
            raise LinkClosed("The link was over before it was told of.") from None

    async def _answer(self, stream: Stream) -> None:
        """Kademlia's questions."""
        assert isinstance(stream, DirectStream)
        self._answering[stream.peer] += 1
        try:
            if self._answering[stream.peer] <= MOST_ANSWERS:
                await self._answer_all(stream)
            else:
                stream.reset()
        finally:
            self._answering[stream.peer] -= 1
            if not self._answering[stream.peer]:
                del self._answering[stream.peer]

    async def _answer_all(self, stream: DirectStream) -> None:
        cutter = Cutter(LONGEST_QUESTION)
        while pieces := await read_piece(stream, cutter):
            for piece in pieces:
                question = decode_question(piece)
                if question.kind == PUT_VALUE or not self._questions.take(stream.peer, self._now()):
                    return  # nobody's values are kept here, and nobody is answered without end
                if question.kind == ADD_PROVIDER:
                    self._remember(stream, question)
                    continue
                near = [] if question.kind == PING else self._near(question.key, stream)
                found = self._providers.of(question.key, self._now()) if question.kind == GET_PROVIDERS else []
                stream.write(encode_answer(question, near, found))
            await stream.drain()

    def _near(self, key: bytes, stream: DirectStream) -> list[Contact]:
        """Us too, where we are what is looked for: go-libp2p takes only those for peers who then name somebody."""
        near = self._table.nearest(spot(key), without=stream.peer_id)
        if key == self.peer_id.raw and (here := self._told(stream.reached_at)):
            return [Contact(self.peer_id, tuple(here)), *near[: NEAREST - 1]]
        return near

    def _remember(self, stream: DirectStream, question: Question) -> None:
        """What a peer says that it provides; of others nobody can speak."""
        for one in question.providers:
            if one.peer == stream.peer_id and stream.seen_at is not None and len(question.key) <= MOST_KEY:
                self._providers.put(question.key, one, place(stream.seen_at[0]), self._now())

    async def _introduce(self, stream: Stream) -> None:
        assert isinstance(stream, DirectStream)
        told, protocols = self._told(stream.reached_at), (MESHSUB, KAD, IDENTIFY, PUSH, PINGED)
        stream.write(introduction(self.peer_id, told, protocols, stream.seen_at, "lading"))

    # -- what the mesh decided

    async def _keep_ticking(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._mesh.tick(self._now())
            self._act()

    def _act(self) -> None:
        effects, self._mesh.effects = self._mesh.effects, []
        for effect in effects:
            match effect:
                case Send(peers, data):
                    self._voices.say(peers, data)
                case Deliver(topic, data):
                    self._readers.feed(topic, data)
                case Blame():
                    self._punish(effect)
                case _:
                    assert_never(effect)

    def _punish(self, blame: Blame) -> None:
        guard, now = self._transport.guard, self._now()
        guard.blame(blame.peer, blame.points, now)
        log.debug("0x%s is to blame: %s", blame.peer.hex(), blame.why)
        if guard.barred_for(blame.peer, now) > 0:
            for link in self._transport.links(blame.peer):
                if isinstance(link, DirectLink):
                    link.turn_away(f"The peer did harm: {blame.why}.")

    # -- inside

    async def _look_nearby(self) -> None:
        mine = Endpoint("ip4", self._lan_address, Endpoint.parse(self._address).port, self.peer_id)
        try:
            from lading_net.gossip.lan import Lan

            lan = Lan(mine, self._nearby)
            await lan.open()
        except (ImportError, OSError) as error:
            log.info("peers nearby are not looked for: %s", error)
            return
        self._lan = lan

    def _nearby(self, endpoint: Endpoint) -> None:
        log.info("a peer is nearby: %s", endpoint)
        self._seeker.meet(endpoint)

    def _told(self, here: str) -> list[Endpoint]:
        """Where we listen, to somebody who sees us at `here`."""
        if self._announce:
            return list(self._announce)
        bound = Endpoint.parse(self._address)
        if bound.host not in ("0.0.0.0", "::"):
            return [bound]
        return [Endpoint("ip6" if ":" in here else "ip4", here, bound.port)] if here else []

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a part of gossip failed", exc_info=error)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _with_peer(text: str) -> Endpoint:
    endpoint = Endpoint.parse(text)
    if endpoint.peer is None:
        raise BadEndpoint(f"The bootstrap address {text!r} does not say whose it is: it lacks /p2p/ and a peer id.")
    return endpoint
