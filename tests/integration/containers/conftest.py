"""Images for these tests, a container engine for the whole session, and a short way to an agent in a container."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from integration.engines.asking import Answer
from lading_images.build import BUILD, Built, base_layer
from lading_images.pack import Entry, Layer, write_image, write_layer
from lading_node.engines.container import ContainerEngine
from lading_node.engines.port import AgentFile, EngineSpec, Generate, Ready
from lading_protocol.messages import CallRequest
from tools import require_docker, require_image

AGENT = Path(__file__).with_name("hostile_agent.py")
SDK = Path(__file__).parents[3] / "docker" / "agents" / "lading_agent.py"
MEMORY = 96 << 20


@pytest.fixture(scope="session")
def docker_url() -> str:
    return require_docker()


@pytest.fixture(scope="session")
def layers(tmp_path_factory: pytest.TempPathFactory) -> list[Layer]:
    """The base, and on it the agent that does what it is told."""
    require_image("wordcount")
    files = [Entry("agent/agent.py", AGENT), Entry("agent/lading_agent.py", SDK)]
    return [base_layer(BUILD), write_layer(files, tmp_path_factory.mktemp("layer") / "files.tar")]


@pytest.fixture(scope="session")
def image(layers: list[Layer], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Built]:
    """The image whose agent begins in a certain way; `settings` are those of its config."""
    folder = tmp_path_factory.mktemp("images")
    made: dict[str, Built] = {}

    def make(mode: str = "honest", **settings: Any) -> Built:
        key = mode + json.dumps(settings)
        if key not in made:
            archive = folder / f"{len(made)}.tar"
            command = ["/usr/bin/python3", "-EsB", "/agent/agent.py", mode]
            made[key] = Built(archive, write_image(layers, {"Entrypoint": command} | settings, archive))
        return made[key]

    return make


def spec_of(archive: Path, **changes: Any) -> EngineSpec:
    file = AgentFile("image", str(archive), hashlib.sha256(archive.read_bytes()).digest())
    return msgspec.structs.replace(EngineSpec("oci", (file,), context=262_144, memory=MEMORY), **changes)


class Quay:
    """Where containers are opened: starts an agent and has it gone at the end."""

    def __init__(self, url: str, folder: Path, image: Callable[..., Built]) -> None:
        self.url = url
        self.folder = folder
        self.image = image

    def engine(self, mode: str = "honest", *, stall: float = 120, load_deadline: float = 60, **changes: Any) -> Any:
        spec = spec_of(self.image(mode).archive, **changes)
        return ContainerEngine(spec, self.folder, self.url, stall=stall, load_deadline=load_deadline)

    @asynccontextmanager
    async def open(self, mode: str = "honest", **settings: Any) -> AsyncIterator[tuple[ContainerEngine, Ready]]:
        engine = self.engine(mode, **settings)
        ready = await engine.start()
        try:
            yield engine, ready
        finally:
            await engine.stop(0)


@pytest.fixture
def quay(docker_url: str, tmp_path: Path, image: Callable[..., Built]) -> Quay:
    return Quay(docker_url, tmp_path, image)


def order(operation: str, input: Any = None, *, max_tokens: int = 20_000, id: str = "", ahead: int = 0) -> Generate:
    request = CallRequest(operation, msgspec.json.encode(input), max_tokens)
    return Generate(id or f"{operation} {order_count()}", request, ahead=ahead)


_orders = iter(range(10**9))


def order_count() -> int:
    return next(_orders)


async def ask(engine: ContainerEngine, operation: str, input: Any = None, **settings: Any) -> Answer:
    answer = Answer()
    async with aclosing(engine.generate(order(operation, input, **settings))) as events:  # type: ignore[type-var]
        async for event in events:
            answer.add(event)
    return answer


async def value(engine: ContainerEngine, operation: str, input: Any = None, **settings: Any) -> Any:
    """The answer as JSON."""
    answer = await ask(engine, operation, input, **settings)
    assert answer.text, answer.end
    return json.loads(answer.text)
