"""Many machines as one host: places engines where they fit, relays to them, and notices within seconds what is lost.

Knows no Ray: a cluster is a door that finds machines and moves bytes. Money, peers and prices are not its business.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import msgspec

from lading import __version__
from lading_node.core.placing import Need, Room, Taken, fits, place
from lading_node.engines import pool_wire as wire
from lading_node.engines.errors import EngineError
from lading_node.engines.pool_engine import PoolEngine
from lading_node.engines.pool_wire import BEAT_S
from lading_node.engines.port import EngineSpec
from lading_node.engines.spread import SpreadEngine
from lading_node.hardware.devices import Device, device_class, serving_class
from lading_protocol.errors import BadMessage

log = logging.getLogger(__name__)

# A machine that is silent for two beats is lost.
SILENT_S = 2 * BEAT_S
_ELSEWHERE = "Ask again: another machine may have room."


class Found(msgspec.Struct, frozen=True, tag="found"):
    """A machine is there (again). `granted` are the resources its operator declared, by Ray's names; empty: all."""

    machine: str
    granted: dict[str, float] = {}


class Heard(msgspec.Struct, frozen=True, tag="heard"):
    """Frames from a machine; none is a beat."""

    machine: str
    data: bytes


class Lost(msgspec.Struct, frozen=True, tag="lost"):
    machine: str
    why: str


News = Found | Heard | Lost


class Cluster(Protocol):
    async def open(self) -> None:
        """Raises EngineError."""
        ...

    def news(self) -> AsyncIterator[News]:
        """Until closed. Lost and Found come in turn for each machine; what is said in between reaches it in order."""
        ...

    async def say(self, machine: str, data: bytes) -> None:
        """Waits while the way there is full. Never raises: a machine that cannot be reached is Lost soon."""
        ...

    async def close(self) -> None: ...


class Capacity(msgspec.Struct, frozen=True):
    """The sum over the machines that answer, as each measured itself."""

    machines: int
    cores: float
    memory: int
    devices: tuple[str, ...]
    engines: int


class _Machine(msgspec.Struct):
    granted: dict[str, float]
    session: str
    heard: float
    room: Room | None = None
    devices: tuple[Device, ...] = ()


class Pool:
    """Open it inside the running loop; close it to end every engine."""

    def __init__(self, cluster: Cluster, *, silent: float = SILENT_S) -> None:
        self._cluster = cluster
        self._silent = silent
        self._machines: dict[str, _Machine] = {}
        self._seats: dict[str, tuple[Taken, PoolEngine]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._spreads: list[SpreadEngine] = []

    async def open(self) -> None:
        """Raises EngineError when the cluster cannot be had."""
        await self._cluster.open()
        self._tasks = [asyncio.ensure_future(self._listen()), asyncio.ensure_future(self._watch())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for name in list(self._machines):
            self._lose(name, "The node closed the pool.")
        await self._cluster.close()

    def engine(self, spec: EngineSpec) -> PoolEngine:
        """An engine of this spec, not started yet."""
        return PoolEngine(spec, self)

    def spread(self, spec: EngineSpec, most: int = 0) -> SpreadEngine:
        """One engine of this spec on as many machines as there is room for, `most` members at most (0: no limit)."""
        return SpreadEngine(spec, self, most)

    def capacity(self) -> Capacity:
        known = [machine for machine in self._machines.values() if machine.room is not None]
        rooms = self._rooms()
        return Capacity(
            machines=len(known),
            cores=sum(room.cores for room in rooms),
            memory=sum(room.memory for room in rooms),
            devices=tuple(sorted(map(device_class, self.devices()))),
            engines=len(self._seats),
        )

    def devices(self) -> tuple[Device, ...]:
        """Of all machines that answer."""
        return tuple(device for machine in self._machines.values() if machine.room for device in machine.devices)

    def fits(self, need: Need) -> int:
        """How many more engines of this need there is room for."""
        return fits(need, self._rooms(), self._taken())

    async def machines(self, count: int, seconds: float) -> bool:
        """Wait until so many machines have answered."""
        try:
            async with asyncio.timeout(seconds):
                while len(self._rooms()) < count:
                    await self._change()
        except TimeoutError:
            return False
        return True

    # What engines call

    def take_seat(
        self, need: Need, engine: PoolEngine, takes: Callable[[str], bool] = lambda machine: True
    ) -> tuple[str, Taken]:
        """On a machine that `takes` it. Raises EngineError when it fits nowhere."""
        found = place(need, [room for room in self._rooms() if takes(room.machine)], self._taken())
        if isinstance(found, str):
            raise EngineError("resource_exhausted", found, hint="Add a machine, or stop another agent.")
        seat = secrets.token_hex(8)
        self._seats[seat] = (found, engine)
        return seat, found

    def leave_seat(self, seat: str) -> None:
        self._seats.pop(seat, None)
        self._changed.set()

    async def say(self, seat: str, data: bytes) -> None:
        """A seat that is gone hears nothing."""
        if (held := self._seats.get(seat)) is not None:
            await self._cluster.say(held[0].machine, data)

    # What spreads call

    def enter(self, spread: SpreadEngine) -> None:
        self._spreads.append(spread)

    def leave(self, spread: SpreadEngine) -> None:
        if spread in self._spreads:
            self._spreads.remove(spread)
            self._changed.set()

    def knows(self, spread: SpreadEngine) -> bool:
        return spread in self._spreads

    def kind_of(self, machine: str, card: bool) -> str:
        """The class of device that an engine would use there."""
        return serving_class(self._machines[machine].devices, card) if machine in self._machines else ""

    async def change(self, seconds: float) -> None:
        """Wait until a machine came or went or an engine ended, but no longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._change()

    def may_grow(self, spread: SpreadEngine) -> bool:
        """Whether there is room for one more member that nobody waits for who has none yet."""
        if any(one.makes_room for one in self._spreads):
            return False
        return self._fits(spread) and not any(one.waiting and self._fits(one) for one in self._spreads)

    def make_room(self, hungry: SpreadEngine) -> None:
        """One that has many members lets one go, if that gives a first one to an agent that has none."""
        if any(one.makes_room for one in self._spreads):
            return
        for spread in sorted(self._spreads, key=lambda one: -len(one.members)):
            for member in sorted(spread.members, key=lambda one: one.load) if len(spread.members) > 1 else ():
                rest = [taken for taken, engine in self._seats.values() if engine is not member]
                if self._fits(hungry, rest):
                    spread.let_go(member)
                    return

    def _fits(self, spread: SpreadEngine, taken: list[Taken] | None = None) -> bool:
        rooms = [room for room in self._rooms() if spread.takes(room.machine)]
        return isinstance(place(spread.need, rooms, self._taken() if taken is None else taken), Taken)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # What the cluster tells

    async def _listen(self) -> None:
        async for news in self._cluster.news():
            now = asyncio.get_running_loop().time()
            match news:
                case Found(machine=name, granted=granted):
                    await self._greet(name, granted)
                case Lost(machine=name, why=why):
                    self._lose(name, why)
                    self._machines.pop(name, None)
                case Heard(machine=name, data=data):
                    machine = self._machines.get(name)
                    if machine is None:
                        continue
                    machine.heard = now
                    if not machine.session:  # it was silent for too long and speaks again
                        await self._greet(name, machine.granted)
                    elif data:
                        self._take(name, machine, data)

    async def _greet(self, name: str, granted: dict[str, float]) -> None:
        self._lose(name, "The machine started anew.")
        machine = _Machine(granted, secrets.token_hex(8), asyncio.get_running_loop().time())
        self._machines[name] = machine
        await self._cluster.say(name, wire.encode(wire.Hello(machine.session)))

    def _take(self, name: str, machine: _Machine, data: bytes) -> None:
        try:
            for message in wire.from_machine(data):
                if isinstance(message, wire.Here):
                    self._meet(name, machine, message)
                elif (held := self._seats.get(message.seat)) is not None and held[0].machine == name:
                    held[1].receive(message)
        except (BadMessage, msgspec.MsgspecError) as error:
            self._lose(name, f"The machine sent what is not a message: {error}")

    def _meet(self, name: str, machine: _Machine, here: wire.Here) -> None:
        if here.session != machine.session:
            return
        if here.program != __version__:
            log.warning("machine %s runs lading %s, this node %s: not used", name, here.program, __version__)
            return
        machine.devices = granted_devices(here.devices, machine.granted)
        machine.room = room_of(name, machine.devices, machine.granted)
        log.info("machine %s: %g cores, %d cards", name, machine.room.cores, len(machine.room.cards))
        self._changed.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._silent / 16)
            now = asyncio.get_running_loop().time()
            for name, machine in self._machines.items():
                if machine.session and now - machine.heard >= self._silent:
                    self._lose(name, f"The machine was silent for {self._silent:g} s.")

    def _lose(self, name: str, why: str) -> None:
        """Its engines are gone as far as anybody can tell; whatever it says from now on is of a session of before."""
        machine = self._machines.get(name)
        if machine is None or not machine.session:
            return
        if machine.room is not None:
            log.warning("machine %s is not there any more: %s", name, why)
        machine.session, machine.room = "", None
        self._changed.set()
        for seat, (taken, engine) in list(self._seats.items()):
            if taken.machine == name:
                engine.receive(wire.Gone(seat, "engine_died", f"{why} Its engine is lost.", _ELSEWHERE))

    def _rooms(self) -> list[Room]:
        return [machine.room for machine in self._machines.values() if machine.room is not None]

    def _taken(self) -> list[Taken]:
        return [taken for taken, _ in self._seats.values()]


def granted_devices(devices: tuple[Device, ...], granted: dict[str, float]) -> tuple[Device, ...]:
    """Cards that the operator declared as `gpu:<uuid>` where any is, else as many as the count GPU says."""
    named = {name.removeprefix("gpu:") for name in granted if name.startswith("gpu:")}
    cards = [device for device in devices if device.vendor != "cpu" and device.usable]
    if named:
        cards = [card for card in cards if card.uuid in named]
    elif granted:
        cards = cards[: int(granted.get("GPU", 0))]
    return (*(device for device in devices if device.vendor == "cpu"), *cards)


def room_of(name: str, devices: tuple[Device, ...], granted: dict[str, float]) -> Room:
    """What was measured, and no more than was granted."""
    processor = next((device for device in devices if device.vendor == "cpu"), None)
    cores = min(processor.cores if processor else 0.0, granted.get("CPU", float("inf")))
    memory = min(processor.memory if processor else 0, int(granted.get("memory", 1 << 62)))
    cards = tuple(device.uuid for device in devices if device.vendor != "cpu" and device.uuid)
    return Room(name, cores, memory, cards)
