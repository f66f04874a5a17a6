"""A publisher moves on and takes back; hosts follow. Jobs run through it, crashes fall between steps, liars talk."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from factories import chat_request, key
from lading_contracts.registry import Party, Role
from lading_coordinator.agents import entry_of
from lading_coordinator.core.catalogue import Catalogue
from lading_coordinator.releases import Releases
from lading_coordinator.store import Store
from lading_net.clock import run_virtual
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_node.agents import Serving
from lading_node.engines.errors import EngineError
from lading_node.engines.memory import MemoryEngine
from lading_node.engines.port import EngineSpec, Ready
from lading_node.errors import NoPackage
from lading_node.node import Node
from lading_node.ports import Package
from lading_node.status import status, why_not_earning
from lading_protocol.ids import AgentId, Digest, TermsId
from lading_protocol.keys import PrivateKey
from lading_protocol.manifest import Manifest, agent_id, dump
from lading_protocol.messages import RELEASE, Follow, Move, Pointer, Withdraw, Yanked
from lading_protocol.release import ReleasePointer, Yank, lineage
from lading_protocol.transcript import sha256
from simulation.node_world import MANIFEST, PRICE, Gateway, Sea

PUBLISHER, STRANGER = key("publisher"), key("stranger")
DAY = 86_400


def release(version: str, publisher: PrivateKey = PUBLISHER, name: str = "ferry") -> Manifest:
    owner = "0x" + publisher.address.hex()
    return msgspec.structs.replace(MANIFEST, name=name, version=version, publisher=owner)


V1, V2, V3 = release("1"), release("2"), release("3")
FOREIGN, OTHER = release("2", STRANGER), release("1", PUBLISHER, "barge")
A1, A2, A3 = (agent_id(dump(one)) for one in (V1, V2, V3))
LINE = lineage(PUBLISHER.address, "ferry")


class Broken(MemoryEngine):
    async def start(self) -> Ready:
        raise EngineError("resource_exhausted", "There is no memory for it.")


class Shelf:
    """Packages without files, by digest. `broken` ones do not load."""

    def __init__(self, *manifests: Manifest) -> None:
        self.held = {agent_id(dump(one)): one for one in manifests}
        self.broken: set[str] = set()
        self.asked: list[AgentId] = []
        self.released: list[AgentId] = []

    def has(self, agent: AgentId) -> bool:
        return agent in self.held

    def release(self, agent: AgentId) -> None:
        self.released.append(agent)

    async def get(self, agent: AgentId, note: Callable[[str], None]) -> Package:
        self.asked.append(agent)
        await asyncio.sleep(0.5)
        if agent not in self.held:
            raise NoPackage("It is not on this shelf.")
        made = self.held[agent]
        return Package(agent, made, made.runtimes[0], EngineSpec("memory", context=1024, seed=made.version))

    def engine(self, spec: EngineSpec) -> MemoryEngine:
        kind = Broken if spec.seed in self.broken else MemoryEngine
        return kind(spec, token_delay=0.3)


class Harbour:
    """A sea with one publisher, a gateway that carries its papers, and a host that serves version 1."""

    def __init__(self, sea: Sea, folder: Path) -> None:
        self.sea = sea
        self.folder = folder
        self.gateway = Gateway(sea, agent=A1)
        self.shelf = Shelf(V1, V2, V3, FOREIGN, OTHER)
        self.catalogue = Catalogue()
        registry, domain = sea.contracts.registry, sea.record.registry_domain
        self.releases = Releases(Store(":memory:"), registry, self.catalogue, domain, sea.now)
        self.terms: dict[AgentId, TermsId] = {}
        self.follow = True
        self.task: asyncio.Task[None] | None = None
        self._sequence = 0

    @classmethod
    async def create(cls, folder: Path) -> "Harbour":
        sea = await Sea.create()
        made = cls(sea, folder)
        for manifest, owner in (
            (V1, PUBLISHER),
            (V2, PUBLISHER),
            (V3, PUBLISHER),
            (FOREIGN, STRANGER),
            (OTHER, PUBLISHER),
        ):
            await made.register(manifest, owner)
        await sea.fund(made.gateway.key)
        made.gateway.transport.handle(RELEASE, made.releases.serve)
        await made.gateway.start()
        await made.up()
        return made

    async def register(self, manifest: Manifest, owner: PrivateKey) -> None:
        registry, agent = self.sea.contracts.registry, agent_id(dump(manifest))
        await registry.register(owner, agent)
        table = [Party(owner.address, Role.MAKER, 1000)]
        self.terms[agent] = TermsId(await registry.agree_terms(owner, agent, table))
        self.catalogue.add(entry_of(agent, manifest, int(self.sea.now())))

    async def up(self, agent: AgentId = A1) -> None:
        serving = Serving(agent, self.terms[agent], PRICE, follow=self.follow)
        self.node: Node = self.sea.node(
            "host",
            coordinators=(self.gateway.endpoint,),
            folder=self.folder,
            engine=self.shelf.engine,
            packages=self.shelf,
            agents=(serving,),
        )
        self.task = asyncio.get_running_loop().create_task(self.node.run())
        await self.node.started.wait()

    async def crash(self) -> None:
        assert self.task is not None
        self.sea.network.kill(self.node.address)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.node.doors.ledger.close()

    async def end(self) -> None:
        assert self.task is not None
        self.node.stop()
        await self.task
        await self.node.doors.ledger.close()

    # The publisher's papers

    def pointer(self, agent: AgentId, *, by: PrivateKey = PUBLISHER, of: Digest = LINE, life: int = DAY) -> bytes:
        self._sequence += 1
        now = int(self.sea.now())
        pointer = ReleasePointer(of, agent, self._sequence, now, now + life)
        return pointer.sign(self.sea.record.registry_domain, by).pack()

    def yank(self, agent: AgentId, reason: str, by: PrivateKey = PUBLISHER) -> Withdraw:
        self._sequence += 1
        paper = Yank(agent, self._sequence, sha256(reason.encode())).sign(self.sea.record.registry_domain, by)
        return Withdraw(paper.pack(), reason)

    async def move(self, agent: AgentId) -> bytes:
        paper = self.pointer(agent)
        await self.releases.move(Move(paper), lambda agent: True)
        return paper

    def said_by_a_liar(self, *messages: Pointer | Yanked) -> None:
        """From now on the gateway says this to whoever follows, whatever it is."""

        async def lie(stream: Stream) -> None:
            heard: MessageStream[Follow] = MessageStream(stream, msgspec.msgpack.Decoder(Follow))
            await heard.recv()
            for message in messages:
                heard.send(message)
            await heard.drain()
            await asyncio.sleep(1000)

        self.gateway.transport.handle(RELEASE, lie)

    # What is seen

    @property
    def offered(self) -> list[AgentId]:
        return sorted(known.agent for known in self.gateway.directory.offers())

    @property
    def served(self) -> list[tuple[AgentId, str]]:
        return [(one.serving.agent, one.state) for one in self.node.agents]

    async def until_offered(self, *agents: AgentId) -> None:
        async with asyncio.timeout(200):
            while self.offered != sorted(agents):  # noqa: ASYNC110
                await asyncio.sleep(0.1)


def play(scene: Callable[[Harbour], Coroutine[Any, Any, None]], folder: Path) -> None:
    async def main() -> None:
        harbour = await Harbour.create(folder)
        await harbour.until_offered(A1)
        await scene(harbour)
        await harbour.end()

    run_virtual(main())


def test_a_job_runs_through_the_move_and_the_next_one_is_the_new_release_s(tmp_path: Path) -> None:
    async def scene(harbour: Harbour) -> None:
        job = asyncio.ensure_future(harbour.gateway.ask(chat_request(max_tokens=300)))
        await asyncio.sleep(2)
        await harbour.move(A2)
        await harbour.until_offered(A2)
        assert not job.done()
        assert harbour.served == [(A1, "replaced"), (A2, "serving")]
        assert not any("Agent 0x" in reason for reason in why_not_earning(harbour.node))
        _, ids = await job
        assert len(ids) > 10
        assert len(harbour.gateway.ended[0].parts) == 1
        await asyncio.sleep(1)
        assert harbour.served == [(A2, "serving")]
        assert harbour.shelf.released == [A1]
        (fresh,) = harbour.node.agents
        assert (fresh.serving.price, fresh.serving.terms) == (PRICE, harbour.terms[A2])
        harbour.gateway.agent = A2
        assert (await harbour.gateway.ask(chat_request("again")))[1]

    play(scene, tmp_path)


@pytest.mark.parametrize("after", [0.02, 0.1, 0.4, 0.6, 0.9, 2.0, 5.0])
def test_a_crash_at_any_step_goes_on_from_there(tmp_path: Path, after: float) -> None:
    async def scene(harbour: Harbour) -> None:
        await harbour.move(A2)
        await asyncio.sleep(after)
        await harbour.crash()
        await harbour.up()
        await harbour.until_offered(A2)
        await asyncio.sleep(60)
        assert harbour.served == [(A2, "serving")]
        (told,) = status(harbour.node)["agents"]
        assert told["release"]["sequence"] == 1
        assert told["release"]["named"] == "0x" + A1.hex()

    play(scene, tmp_path)


def test_what_was_decided_is_carried_out_without_any_coordinator(tmp_path: Path) -> None:
    async def scene(harbour: Harbour) -> None:
        del harbour.shelf.held[A2]
        await harbour.move(A2)
        await asyncio.sleep(3)
        assert "is not taken yet" in harbour.node.releases.trouble[A1]
        assert harbour.offered == [A1]
        await harbour.crash()
        harbour.said_by_a_liar()
        harbour.shelf.held[A2] = V2
        await harbour.up()
        await harbour.until_offered(A2)

    play(scene, tmp_path)


def test_an_old_pointer_changes_nothing(tmp_path: Path) -> None:
    async def scene(harbour: Harbour) -> None:
        first = harbour.pointer(A1)
        second = await harbour.move(A2)
        await harbour.until_offered(A2)
        harbour.said_by_a_liar(Pointer(first), Pointer(second))
        for _ in range(2):
            await asyncio.sleep(60)
            assert harbour.served == [(A2, "serving")]
            await harbour.crash()
            await harbour.up()
            await harbour.until_offered(A2)

    play(scene, tmp_path)


def test_a_first_pointer_to_something_older_is_not_believed(tmp_path: Path) -> None:
    """Who never saw a pointer cannot tell a replayed one; it does not go back for it."""

    async def scene(harbour: Harbour) -> None:
        await harbour.crash()
        old = harbour.pointer(A1)
        harbour.said_by_a_liar(Pointer(old))
        await harbour.up(A3)
        await harbour.until_offered(A3)
        await asyncio.sleep(60)
        assert harbour.served == [(A3, "serving")]

    play(scene, tmp_path)


@pytest.mark.parametrize(
    "lie", ["forged", "foreign", "another name", "another line", "expired", "unregistered", "noise"]
)
def test_a_lie_changes_nothing_and_hides_no_truth(tmp_path: Path, lie: str) -> None:
    async def scene(harbour: Harbour) -> None:
        papers = {
            "forged": lambda: harbour.pointer(A2, by=STRANGER),
            "foreign": lambda: harbour.pointer(agent_id(dump(FOREIGN))),
            "another name": lambda: harbour.pointer(agent_id(dump(OTHER))),
            "another line": lambda: harbour.pointer(A2, of=lineage(PUBLISHER.address, "barge")),
            "expired": lambda: harbour.pointer(A2, life=0),
            "unregistered": lambda: harbour.pointer(AgentId(sha256(b"nobody's"))),
            "noise": lambda: bytes(225),
        }
        said = Pointer(papers[lie]())
        harbour.said_by_a_liar(said)
        await harbour.crash()
        await harbour.up()
        await harbour.until_offered(A1)
        await asyncio.sleep(40)
        assert harbour.served == [(A1, "serving")]
        assert A2 not in harbour.shelf.asked
        harbour.said_by_a_liar(said, Pointer(harbour.pointer(A3)))
        await harbour.crash()
        await harbour.up()
        await harbour.until_offered(A3)

    play(scene, tmp_path)


def test_a_release_that_does_not_load_keeps_the_old_one_and_says_why(tmp_path: Path) -> None:
    async def scene(harbour: Harbour) -> None:
        harbour.shelf.broken.add("2")
        await harbour.move(A2)
        await asyncio.sleep(60)
        assert harbour.offered == [A1]
        assert harbour.served == [(A1, "serving")]
        (notice,) = status(harbour.node)["notices"]
        assert "was not taken" in notice
        assert "There is no memory for it" in notice
        assert (await harbour.gateway.ask(chat_request("still here?")))[1]
        await harbour.move(A3)
        await harbour.until_offered(A3)
        assert status(harbour.node)["notices"] == []

    play(scene, tmp_path)


def test_a_newer_pointer_overtakes_a_move_that_is_under_way(tmp_path: Path) -> None:
    async def scene(harbour: Harbour) -> None:
        await harbour.move(A2)
        await asyncio.sleep(0.3)
        await harbour.move(A3)
        await harbour.until_offered(A3)
        await asyncio.sleep(5)
        assert harbour.served == [(A3, "serving")]
        await harbour.move(A1)
        await harbour.until_offered(A1)

    play(scene, tmp_path)


def test_an_operator_may_stay_with_what_it_named(tmp_path: Path) -> None:
    async def scene(harbour: Harbour) -> None:
        await harbour.move(A2)
        await harbour.until_offered(A2)
        await harbour.crash()
        harbour.follow = False
        await harbour.up()
        await harbour.until_offered(A1)
        await harbour.move(A3)
        await asyncio.sleep(60)
        assert harbour.served == [(A1, "serving")]

    play(scene, tmp_path)


def test_a_yank_withdraws_the_offer_at_once_and_running_jobs_end(tmp_path: Path) -> None:
    async def scene(harbour: Harbour) -> None:
        job = asyncio.ensure_future(harbour.gateway.ask(chat_request(max_tokens=200)))
        await asyncio.sleep(1)
        await harbour.releases.withdraw(harbour.yank(A1, "It answers with other people's letters."))
        await harbour.until_offered()
        assert not job.done()
        assert len((await job)[1]) > 10
        assert harbour.served == [(A1, "yanked")]
        assert "other people's letters" in why_not_earning(harbour.node)[0]
        await harbour.crash()
        harbour.said_by_a_liar()
        await harbour.up()
        await asyncio.sleep(10)
        assert harbour.offered == []
        assert harbour.served == [(A1, "yanked")]
        harbour.said_by_a_liar(Pointer(harbour.pointer(A2)))
        await harbour.crash()
        await harbour.up()
        await harbour.until_offered(A2)

    play(scene, tmp_path)


def test_a_yank_counts_only_from_its_publisher_and_against_every_pointer(tmp_path: Path) -> None:
    async def scene(harbour: Harbour) -> None:
        forged = harbour.yank(A1, "Run mine.", STRANGER)
        altered = msgspec.structs.replace(harbour.yank(A1, "One thing."), reason="Another thing.")
        good = harbour.yank(A2, "It was a mistake.")
        pointer = harbour.pointer(A2)
        lies = [Yanked(one.yank, one.reason) for one in (forged, altered)]
        harbour.said_by_a_liar(*lies, Yanked(good.yank, good.reason), Pointer(pointer))
        await harbour.crash()
        await harbour.up()
        await harbour.until_offered(A1)
        await asyncio.sleep(60)
        assert harbour.served == [(A1, "serving")]

    play(scene, tmp_path)
