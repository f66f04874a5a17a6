"""Public randomness for audits: numbered rounds at known times, whose values nobody knows before.

`DrandBeacon` reads a drand network over HTTP and believes no answer whose signature it has not checked (bls.py).
`LocalBeacon` is for tests and demos: whoever runs it knows its values.
"""

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from lading_coordinator.errors import CoordinatorError
from lading_coordinator.settings import CoordinatorSettings
from lading_protocol.keys import PrivateKey
from lading_protocol.transcript import sha256

if TYPE_CHECKING:
    import httpx

MAX_ANSWER = 4096
PATIENCE = 10.0
CHECK_SECONDS = 60.0


class BeaconFailed(CoordinatorError):
    """A round's value cannot be had now, or what was answered is not its value."""

    code = "beacon_failed"
    hint = "The round is asked for again; after its last chance, blocks take its place."


class Beacon(Protocol):
    """`name` says which network, and of what key."""

    name: str

    def round_at(self, moment: float) -> int:
        """The first round that is not out before second `moment`."""
        ...

    def time_of(self, number: int) -> float:
        """When the round comes out, in Unix seconds."""
        ...

    async def value(self, number: int) -> bytes:
        """32 bytes. Raises BeaconFailed."""
        ...

    async def close(self) -> None: ...


class Clockwork(msgspec.Struct, frozen=True):
    """Round 1 is out at second `genesis`, and one more every `period` seconds."""

    genesis: int
    period: int

    def round_at(self, moment: float) -> int:
        ahead = moment - self.genesis
        return 1 if ahead <= 0 else -int(-ahead // self.period) + 1

    def time_of(self, number: int) -> float:
        return self.genesis + (number - 1) * self.period


class Network(msgspec.Struct, frozen=True):
    """A drand network: its chain hash, group key, signature scheme, and clock."""

    chain: str
    key: bytes
    scheme: str
    clock: Clockwork


QUICKNET = Network(
    "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971",
    bytes.fromhex(
        "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451"
        "0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"
    ),
    "bls-unchained-g1-rfc9380",
    Clockwork(1_692_803_367, 3),
)


class DrandBeacon:
    """Asks `urls` in their order until one gives a value that holds."""

    def __init__(self, network: Network, urls: tuple[str, ...], http: "httpx.AsyncClient | None" = None) -> None:
        import httpx  # heavy, and only coordinators that ask drand need it

        self._network = network
        self._urls = urls
        self._http = http or httpx.AsyncClient(timeout=PATIENCE, follow_redirects=False)
        self._failures = (httpx.HTTPError, httpx.InvalidURL)
        self.name = f"drand {network.chain[:16]}"

    def round_at(self, moment: float) -> int:
        return self._network.clock.round_at(moment)

    def time_of(self, number: int) -> float:
        return self._network.clock.time_of(number)

    async def value(self, number: int) -> bytes:
        why = "no address is set"
        for url in self._urls:
            try:
                return await self._from(url, number)
            except BeaconFailed as error:
                why = error.message
        raise BeaconFailed(f"No drand address gives round {number}: {why}")

    async def _from(self, url: str, number: int) -> bytes:
        path = f"{url.rstrip('/')}/{self._network.chain}/public/{number}"
        try:
            async with asyncio.timeout(PATIENCE):
                body = await self._read(path)
        except TimeoutError:
            raise BeaconFailed(f"{url} does not answer within {PATIENCE:g} s.") from None
        except self._failures as error:
            raise BeaconFailed(f"{url} cannot be reached ({type(error).__name__}).") from error
        return await asyncio.shield(checked(read_round(body, number), self._network))

    async def _read(self, path: str) -> bytes:
        """The body, never more than MAX_ANSWER bytes of it."""
        async with self._http.stream("GET", path) as response:
            if response.status_code != 200:
                raise BeaconFailed(f"{path} answers with status {response.status_code}.")
            body = b""
            async for part in response.aiter_bytes(MAX_ANSWER):
                body += part
                if len(body) > MAX_ANSWER:
                    raise BeaconFailed(f"{path} answers with more than {MAX_ANSWER} bytes.")
        return body

    async def close(self) -> None:
        await self._http.aclose()


class Answer(msgspec.Struct, frozen=True):
    """A round as drand writes it in JSON; other fields are passed over."""

    round: int
    signature: str
    randomness: str = ""
    previous_signature: str = ""


class Claim(msgspec.Struct, frozen=True):
    """A round whose form is right and whose signature is not checked yet."""

    round: int
    signature: bytes
    previous: bytes


def read_round(body: bytes, number: int) -> Claim:
    """Raises BeaconFailed: not JSON, another round, hex of a wrong size, randomness that is not the signature's."""
    try:
        answer = msgspec.json.decode(body, type=Answer)
        signature, previous = bytes.fromhex(answer.signature), bytes.fromhex(answer.previous_signature)
        stated = bytes.fromhex(answer.randomness)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BeaconFailed(f"What was answered for round {number} does not read: {str(error)[:200]}.") from None
    if answer.round != number:
        raise BeaconFailed(f"Round {answer.round} was answered for round {number}.")
    if len(signature) not in (48, 96) or len(previous) > 96:
        raise BeaconFailed(f"The signature of round {number} has a size that none has.")
    if stated and stated != sha256(signature):
        raise BeaconFailed(f"The randomness of round {number} is not that of its signature.")
    return Claim(number, signature, previous)


async def checked(claim: Claim, network: Network) -> bytes:
    """The round's value, once its signature holds. The pairing takes half a second of one core, so a process of its own
    does it and answers go on meanwhile. Raises BeaconFailed."""
    words = [network.scheme, network.key.hex(), str(claim.round), claim.signature.hex(), claim.previous.hex()]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "lading_coordinator.audits.bls", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            code = await process.wait()
    except TimeoutError:
        raise BeaconFailed(
            f"The signature of round {claim.round} was not checked within {CHECK_SECONDS:g} s."
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code == 1:
        raise BeaconFailed(f"The signature of round {claim.round} is not that of the network.")
    if code != 0:
        raise BeaconFailed(f"The signature of round {claim.round} could not be checked.", hint="Is py_ecc installed?")
    return sha256(claim.signature)


class LocalBeacon:
    """Values from a secret, for tests and demos on one machine."""

    def __init__(self, secret: bytes, clock: Clockwork) -> None:
        self._secret = secret
        self._clock = clock
        self.name = "local"

    def round_at(self, moment: float) -> int:
        return self._clock.round_at(moment)

    def time_of(self, number: int) -> float:
        return self._clock.time_of(number)

    async def value(self, number: int) -> bytes:
        return sha256(b"lading/local-beacon/1" + self._secret + number.to_bytes(8, "big"))

    async def close(self) -> None:
        return


def network_of(text: str) -> Network:
    """Read a network's own description (drand's `/{chain}/info` as JSON). Raises BeaconFailed."""
    try:
        tree: dict[str, Any] = msgspec.json.decode(text)
        clock = Clockwork(int(tree["genesis_time"]), int(tree["period"]))
        chain = bytes.fromhex(tree["hash"])
        network = Network(chain.hex(), bytes.fromhex(tree["public_key"]), str(tree["schemeID"]), clock)
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError) as error:
        raise BeaconFailed(f"The drand network's description does not read: {error}.") from None
    if clock.period < 1 or len(network.key) not in (48, 96) or len(chain) != 32:
        raise BeaconFailed("The drand network's description names no key, no hash or no period that can be.")
    return network


def beacon_of(settings: CoordinatorSettings, key: PrivateKey) -> Beacon | None:
    """What the settings name; None for blocks. Raises BeaconFailed."""
    match settings.audit_beacon:
        case "drand":
            network = network_of(settings.audit_drand) if settings.audit_drand else QUICKNET
            return DrandBeacon(network, settings.audit_drand_urls)
        case "local":
            return LocalBeacon(sha256(b"lading/local-beacon/1" + key.secret), Clockwork(0, 3))
        case "blocks":
            return None
