"""What is asked, and by whom, and the machines that are there: all of it from one seed, the same for every router.

Requests come in families that share the beginning of their prompt, as the calls of one agent program do; families come
and go. Hosts differ in slots, speed, price and region; some lie about their room and drop what they took.
"""

import hashlib
import random
import struct

import msgspec

from factories import NOW, unsigned_offer
from lading_protocol.ids import Address
from lading_protocol.offers import KnownOffer

REGIONS = ("eu-de", "eu-fr", "us-east", "as-jp")
SLOTS = (1, 2, 4, 8)
PACE, GAP = 0.0004, 0.04
BYTES = 4  # a token
PRICE = 10**12
CONTEXT = 1 << 17
# Where the few hosts are that some jobs insist on.
RARE = "as-jp-13"


class Shape(msgspec.Struct, frozen=True):
    """`load` is the share of all slots that the requests take. `spike` multiplies the rate from `spike_at` on for
    `spike_for` seconds. `batch` is the share of slots that batch jobs hold when it begins."""

    hosts: int = 5_000
    seconds: float = 12.0
    load: float = 0.8
    output: int = 480
    families: int = 40
    shared: tuple[int, int] = (500, 4000)
    """Tokens of the beginning that a family shares, from and to."""
    liars: float = 0.02
    deaths: float = 6.0
    """Of a host, an hour."""
    spike: float = 1.0
    spike_at: float = 4.0
    spike_for: float = 4.0
    batch: float = 0.0
    beat: float = 1.0
    warm: float = 3.0
    """Seconds before jobs are timed: nobody knows anybody at first."""
    gateways: int = 4
    spread: float = 0.35
    """Sigma of the prices' logarithm."""
    push: bool = True
    """Whether hosts also report at once when they fill up or have room again, as the node does."""
    rare: int = 0
    """So many hosts are in a region of their own."""
    picky: float = 0.0
    """The share of jobs that insist on that region."""


class Job(msgspec.Struct, frozen=True):
    """Token counts; `shared` of the prompt's are the family's."""

    number: int
    at: float
    gateway: int
    family: int
    shared: int
    prompt: int
    output: int
    tenant: int
    batch: bool = False
    region: str = ""

    def text(self) -> str:
        """A prompt of that many bytes, whose beginning is the family's."""
        family, own = f"{self.family:07x} ", f"{self.number:07x} "
        return family * (self.shared * BYTES // 8) + own * ((self.prompt - self.shared) * BYTES // 8)


class Machine(msgspec.Struct, frozen=True):
    """A host as it is. `speed` divides the time of everything; a liar's is a quarter of what it seems."""

    known: KnownOffer
    slots: int
    speed: float
    region: int
    liar: bool

    @property
    def address(self) -> Address:
        return self.known.host


def machines(seed: int, shape: Shape) -> list[Machine]:
    rng = random.Random(f"machines {seed}")
    made = []
    for n in range(shape.hosts):
        region, liar = rng.randrange(len(REGIONS)), rng.random() < shape.liars
        slots, price = rng.choice(SLOTS), PRICE * rng.lognormvariate(0, shape.spread)
        if liar:
            price /= 2
        known = unsigned_offer(
            n.to_bytes(20, "big"),
            int(price),
            int(price * (rng.uniform(2, 4) if shape.spread else 3)),
            slots=slots,
            expires=int(NOW) + 9_000,
            region=RARE if n < shape.rare else REGIONS[region],
            context=CONTEXT,
        )
        made.append(Machine(known, slots, rng.uniform(0.5, 2.0) / (4 if liar else 1), region, liar))
    return made


def trace(seed: int, shape: Shape, slots: int) -> list[Job]:
    rng = random.Random(f"trace {seed}")
    service = shape.output * GAP + 0.8
    rate = shape.load * (1 - shape.batch) * slots / service
    made: list[Job] = []
    families = [(n, rng.randrange(*shape.shared)) for n in range(shape.families)]
    at = 0.0
    while True:
        burst = shape.spike_at <= at < shape.spike_at + shape.spike_for
        at += rng.expovariate(rate * (shape.spike if burst else 1.0))
        if at >= shape.seconds:
            return made
        if rng.random() < 0.02:
            families[rng.randrange(len(families))] = (len(made) + shape.families, rng.randrange(*shape.shared))
        family, shared = rng.choice(families)
        made.append(
            Job(
                number=len(made),
                at=at,
                gateway=rng.randrange(shape.gateways),
                family=family,
                shared=shared,
                prompt=shared + rng.randrange(20, 600),
                output=max(16, min(8 * shape.output, int(rng.expovariate(1 / shape.output)))),
                tenant=rng.randrange(16),
                region=RARE if shape.picky and rng.random() < shape.picky else "",
            )
        )


def digest(jobs: list[Job]) -> str:
    told = hashlib.sha256()
    for job in jobs:
        told.update(
            struct.pack("<d6I", job.at, job.gateway, job.family, job.shared, job.prompt, job.output, job.tenant)
        )
    return told.hexdigest()
