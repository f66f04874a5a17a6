"""What a coordinator keeps of publishers' papers, what it tells of them, and what it takes from nobody."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from factories import key
from lading import publisher
from lading.blobs import BlobStore, serve_blobs
from lading.errors import PublishRefused
from lading_net.messages import MessageStream
from lading_net.ports import Link
from lading_protocol.eip712 import Signable
from lading_protocol.ids import AgentId, TermsId, to_hex
from lading_protocol.keys import PrivateKey
from lading_protocol.manifest import dump
from lading_protocol.messages import BLOB, RELEASE, Follow, Move, Pointer, ToFollower, Withdraw, Yanked
from lading_protocol.release import PackageSignature, Yank, lineage, point_to
from lading_protocol.transcript import sha256
from unit.coordinator.world import MODEL, World, manifest

MAKER = key("maker")
LINE = lineage(MAKER.address, "storyteller")


class Publisher:
    """The maker, linked to the coordinator, with a store of its own."""

    def __init__(self, world: World, folder: Path, who: PrivateKey = MAKER) -> None:
        self.world = world
        self.key = who
        self.store = BlobStore(folder / "mine")
        self.transport = world.net.transport(who)
        self.transport.handle(BLOB, serve_blobs(self.store))

    async def bring(self, version: str, name: str = "storyteller") -> AgentId:
        await asyncio.sleep(2)  # a block apart
        made = manifest(name, version, self.key)
        agent, terms = await self.world.register(made, self.key)
        self.store.put(dump(made))
        self.store.put(MODEL)
        await self.hand_over(agent, terms)
        return agent

    async def hand_over(self, agent: AgentId, terms: TermsId, signer: PrivateKey | None = None) -> None:
        paper = self.sign(PackageSignature(agent, self.key.address), signer)
        await publisher.hand_over(await self.link(), agent, terms, paper)

    async def point(self, agent: AgentId, later: int = 0, signer: PrivateKey | None = None) -> bytes:
        paper = self.sign(point_to(LINE, agent, self.world.clock() + later), signer)
        await self.say(Move(paper))
        return paper

    async def yank(self, agent: AgentId, reason: str, signer: PrivateKey | None = None) -> None:
        sequence = int(self.world.clock() * 1000)
        await self.say(Withdraw(self.sign(Yank(agent, sequence, sha256(reason.encode())), signer), reason))

    async def say(self, paper: Move | Withdraw) -> None:
        await publisher.announce(await self.link(), paper)

    async def link(self) -> Link:
        return await self.transport.dial(self.world.endpoint, None)

    def sign(self, paper: Signable, signer: PrivateKey | None = None) -> bytes:
        return paper.sign(self.world.record.registry_domain, signer or self.key).pack()


class Follower:
    def __init__(self, world: World) -> None:
        self.world = world
        self.heard: list[Pointer | Yanked] = []

    async def listen(self, *lineages: bytes) -> None:
        link = await self.world.net.transport(key("follower")).dial(self.world.endpoint, None)
        stream: MessageStream[Pointer | Yanked] = MessageStream(
            await link.open(RELEASE), msgspec.msgpack.Decoder(ToFollower)
        )
        stream.send(Follow(lineages))
        while (message := await stream.recv()) is not None:
            self.heard.append(message)


Scene = Callable[[World, Publisher], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Scene], None]:
    from lading_net.clock import run_virtual

    def go(scene: Scene) -> None:
        async def main() -> None:
            async with World(asyncio.get_running_loop(), tmp_path / "home").running() as world:
                await scene(world, Publisher(world, tmp_path))

        run_virtual(main())

    return go


async def meaning_of(world: World, name: str) -> str:
    """The agent that a name means now."""
    return str((await world.ask("GET", f"/v1/models/{name}")).json.get("agent"))


def test_a_name_means_what_its_publisher_points_to(play: Callable[[Scene], None]) -> None:
    async def scene(world: World, maker: Publisher) -> None:
        first, second = await maker.bring("7"), await maker.bring("8")
        assert await meaning_of(world, "storyteller") == to_hex(second)
        await maker.point(first)
        assert await meaning_of(world, "storyteller") == to_hex(first)
        assert await meaning_of(world, "storyteller@latest") == to_hex(first)
        assert await meaning_of(world, "storyteller@8") == to_hex(second)
        shown = (await world.ask("GET", f"/v1/models/{to_hex(first)}")).json
        assert shown["current"] is True
        await world.coordinator.close()
        await world.start()
        assert await meaning_of(world, "storyteller") == to_hex(first)

    play(scene)


def test_followers_hear_what_stands_and_what_changes(play: Callable[[Scene], None]) -> None:
    async def scene(world: World, maker: Publisher) -> None:
        first, second = await maker.bring("7"), await maker.bring("8")
        one = await maker.point(first)
        follower = Follower(world)
        world.tasks.append(asyncio.create_task(follower.listen(LINE)))
        await asyncio.sleep(1)
        assert follower.heard == [Pointer(one)]
        two = await maker.point(second)
        await maker.yank(first, "Its licence was wrong.")
        await asyncio.sleep(1)
        assert follower.heard[1] == Pointer(two)
        assert isinstance(follower.heard[2], Yanked)
        known = await publisher.current(
            await maker.link(), LINE, world.record.registry_domain, MAKER.address, world.clock()
        )
        assert known is not None
        assert known.packed == two
        assert (
            await publisher.current(
                await maker.link(), lineage(MAKER.address, "x"), world.record.registry_domain, MAKER.address, 0
            )
            is None
        )
        late = Follower(world)
        world.tasks.append(asyncio.create_task(late.listen(LINE, bytes(32))))
        await asyncio.sleep(1)
        assert late.heard == [follower.heard[2], Pointer(two)]

    play(scene)


def test_only_the_publisher_moves_and_only_forward(play: Callable[[Scene], None]) -> None:
    async def scene(world: World, maker: Publisher) -> None:
        first, second = await maker.bring("7"), await maker.bring("8")
        other = await maker.bring("1", "barge")
        old = await maker.point(first)
        await maker.point(second, later=1)
        await maker.say(Move(await maker.point(second, later=2)))  # the same again is no error
        for bad, words in (
            (maker.say(Move(old)), "A newer one is held"),
            (maker.point(first, later=5, signer=key("thief")), "not signed by"),
            (maker.point(other, later=5), "another name"),
            (maker.point(AgentId(bytes(32)), later=5), "not known here"),
            (maker.point(first, later=86_400), "dated wrongly"),
            (maker.say(Move(bytes(225))), "not known here"),
            (maker.say(Move(bytes(65))), "bytes"),
        ):
            with pytest.raises(PublishRefused, match=words):
                await bad
        assert await meaning_of(world, "storyteller") == to_hex(second)

    play(scene)


def test_a_yanked_agent_is_offered_no_more_and_never_comes_back(play: Callable[[Scene], None]) -> None:
    async def scene(world: World, maker: Publisher) -> None:
        first, second = await maker.bring("7"), await maker.bring("8")
        await maker.point(second)
        with pytest.raises(PublishRefused, match="not signed by"):
            await maker.yank(second, "Use mine.", key("thief"))
        await asyncio.sleep(1)
        await maker.yank(second, "It answers in riddles.")
        assert await meaning_of(world, "storyteller") == to_hex(first)
        answer = await world.ask("GET", f"/v1/models/{to_hex(second)}")
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")
        assert "It answers in riddles" in answer.error["message"]
        assert to_hex(second) not in (await world.ask("GET", "/lading/v1/agents")).body.decode()
        with pytest.raises(PublishRefused, match="was yanked"):
            await maker.point(second, later=9)
        await world.coordinator.close()
        await world.start()
        assert (await world.ask("GET", f"/v1/models/{to_hex(second)}")).status == 404

    play(scene)


def test_a_package_is_taken_only_with_its_publisher_s_own_signature(play: Callable[[Scene], None]) -> None:
    async def scene(world: World, maker: Publisher) -> None:
        made = manifest("storyteller", "9")
        agent, terms = await world.register(made)
        maker.store.put(dump(made))
        maker.store.put(MODEL)
        with pytest.raises(PublishRefused, match="not signed by"):
            await maker.hand_over(agent, terms, key("thief"))
        await maker.hand_over(agent, terms)

    play(scene)
