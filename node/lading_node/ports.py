"""The doors of the node: what it is handed by whoever composes it (`main`, a simulation, a test)."""

import random
from collections.abc import Callable
from typing import Protocol

import msgspec

from lading_contracts.deployment import Contracts
from lading_net.direct import DirectTransport
from lading_net.ports import Gossip, StreamHandler, Transport
from lading_node.engines.port import Engine, EngineSpec
from lading_node.store import Ledger
from lading_protocol.calibration import Calibration
from lading_protocol.ids import AgentId
from lading_protocol.keys import PrivateKey
from lading_protocol.manifest import Manifest
from lading_protocol.parts import Runtime


class Package(msgspec.Struct, frozen=True):
    """An agent on this machine, verified: what it is, which of its runtimes runs here, and what the engine loads."""

    agent: AgentId
    manifest: Manifest
    runtime: Runtime
    spec: EngineSpec


class Packages(Protocol):
    """Where agents come from."""

    async def get(self, agent: AgentId, note: Callable[[str], None]) -> Package:
        """Fetch and verify it, from disk or from a coordinator; `note` hears of progress in words.

        Raises NoPackage, EngineError, BadPackage, StoreFull, NetError: all LadingErrors.
        """
        ...

    def has(self, agent: AgentId) -> bool: ...

    def release(self, agent: AgentId) -> None:
        """It is not served any more: what it takes on the disk may go when room is needed."""
        ...


EngineMaker = Callable[[EngineSpec], Engine]


class Doors(msgspec.Struct, frozen=True):
    """`clock` gives Unix seconds, `rng` salts (unpredictable in earnest) and jitter.

    `device` says what class of device runs a spec here ("" unknown). Without `gossip` only the configured coordinators
    are used; without `blobs` no packages are served to others. `tables` are the calibrations that audits go by.
    `direct` is the transport once more, where it knows of routers and relays.
    """

    key: PrivateKey
    transport: Transport
    gossip: Gossip | None
    contracts: Contracts
    ledger: Ledger
    packages: Packages
    engine: EngineMaker
    clock: Callable[[], float]
    rng: random.Random
    blobs: StreamHandler | None = None
    device: Callable[[EngineSpec], str] = lambda spec: ""
    tables: tuple[Calibration, ...] = ()
    direct: DirectTransport | None = None
