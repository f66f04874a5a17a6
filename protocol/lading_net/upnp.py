"""A home router that opens a port when asked: UPnP's Internet Gateway Device, found by SSDP and told by SOAP.

What routers send is taken with care: answers are bounded, nothing is fetched from elsewhere than the router that
answered, and XML with a document type is refused. Source: UPnP Device Architecture 1.1, WANIPConnection 1 and 2.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urljoin, urlsplit
from xml.etree import ElementTree

import msgspec

from lading_net.errors import NetError

SSDP = ("239.255.255.250", 1900)
_WANTED = ("WANIPConnection:2", "WANIPConnection:1", "WANPPPConnection:1")
_LARGEST = 256 * 1024
_ASK_SECONDS = 3.0
_TARGETS = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
)
_ENVELOPE = (
    '<?xml version="1.0"?>\r\n<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
    's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
    '<u:{verb} xmlns:u="{service}">{given}</u:{verb}></s:Body></s:Envelope>\r\n'
)
_WORDS = {
    "606": "it lets nobody open ports; look for UPnP in its settings",
    "718": "the port is taken by another machine of this network",
    "725": "it opens ports without an end only",
    "501": "it failed",
}


class NoRouter(NetError):
    """No router that opens ports by UPnP answered."""

    code = "net_no_upnp"
    hint = "Switch UPnP on in the router, or forward the port by hand and name it with --announce."


class RouterRefused(NetError):
    """The router did not open the port."""

    code = "net_upnp_refused"
    hint = "Forward the port by hand in the router, and name it with --announce."


class Router(msgspec.Struct, frozen=True):
    """Where a router takes orders, what it calls the service, and our own address as it sees it."""

    control: str
    service: str
    mine: str

    async def outside(self) -> str:
        """The router's outer IP address. Raises RouterRefused."""
        return (await self._order("GetExternalIPAddress", {})).get("NewExternalIPAddress", "")

    async def open_port(self, port: int, life: int) -> None:
        """Sends TCP to `port` outside on to the same port here, for `life` seconds. Raises RouterRefused."""
        given = {
            "NewRemoteHost": "",
            "NewExternalPort": str(port),
            "NewProtocol": "TCP",
            "NewInternalPort": str(port),
            "NewInternalClient": self.mine,
            "NewEnabled": "1",
            "NewPortMappingDescription": "lading",
            "NewLeaseDuration": str(life),
        }
        await self._order("AddPortMapping", given)

    async def close_port(self, port: int) -> None:
        """Raises RouterRefused."""
        given = {"NewRemoteHost": "", "NewExternalPort": str(port), "NewProtocol": "TCP"}
        await self._order("DeletePortMapping", given)

    async def _order(self, verb: str, given: dict[str, str]) -> dict[str, str]:
        inside = "".join(f"<{name}>{value}</{name}>" for name, value in given.items())
        body = _ENVELOPE.format(verb=verb, service=self.service, given=inside)
        head = {"Content-Type": 'text/xml; charset="utf-8"', "SOAPAction": f'"{self.service}#{verb}"'}
        try:
            code, answer = await _http("POST", self.control, head, body.encode())
            found = {_tag(one): (one.text or "").strip() for one in _xml(answer).iter()}
        except (OSError, TimeoutError, ValueError) as error:
            raise RouterRefused(f"The router did not understand {verb}: {error or 'no answer'}.") from None
        if code != 200:
            why = _WORDS.get(found.get("errorCode", ""), found.get("errorDescription", "") or f"it answers {code}")
            raise RouterRefused(f"The router refuses {verb}: {why[:200]}.")
        return found


async def find_router(patience: float = 2.0, place: tuple[str, int] = SSDP) -> Router:
    """The first router that answers and opens ports. Raises NoRouter."""
    loop = asyncio.get_running_loop()
    locations: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    try:
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Listener(locations), local_addr=("0.0.0.0", 0), family=socket.AF_INET
        )
    except OSError as error:
        raise NoRouter(f"No question can be sent to the network: {error}.") from None
    trouble = "none answered"
    try:
        async with asyncio.timeout(patience):
            for target in _TARGETS:
                transport.sendto(_question(target), place)
            while True:
                router, url = await locations.get()
                try:
                    return await _described(router, url)
                except (OSError, ValueError) as error:
                    trouble = f"one answered, and its description is not good ({error})"
    except TimeoutError:
        raise NoRouter(f"No router that opens ports by UPnP was found: {trouble}.") from None
    except OSError as error:
        raise NoRouter(f"No question can be sent to the network: {error}.") from None
    finally:
        transport.close()


def _question(target: str) -> bytes:
    lines = ("M-SEARCH * HTTP/1.1", f"HOST: {SSDP[0]}:{SSDP[1]}", 'MAN: "ssdp:discover"', "MX: 1", f"ST: {target}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class _Listener(asyncio.DatagramProtocol):
    """Notes who answered, and where each says that it is described."""

    def __init__(self, found: asyncio.Queue[tuple[str, str]]) -> None:
        self._found = found

    def datagram_received(self, data: bytes, addr: tuple[str | int, int]) -> None:
        for line in data[:4096].decode("latin-1").split("\r\n"):
            name, _, value = line.partition(":")
            if name.strip().lower() == "location" and self._found.qsize() < 16:
                self._found.put_nowait((str(addr[0]), value.strip()))

    def error_received(self, exc: Exception) -> None:
        """The network may refuse the question; then nobody answers."""


async def _described(router: str, url: str) -> Router:
    """Raises ValueError, OSError."""
    if urlsplit(url).hostname != router or not ipaddress.ip_address(router).is_private:
        raise ValueError("it is said to be elsewhere than the router")
    code, body = await _http("GET", url, {}, b"")
    if code != 200:
        raise ValueError(f"it answers {code}")
    services = {}
    for service in _xml(body).iter():
        if _tag(service) == "service":
            parts = {_tag(one): (one.text or "").strip() for one in service}
            services[parts.get("serviceType", "").removeprefix("urn:schemas-upnp-org:service:")] = parts
    for wanted in _WANTED:
        if wanted in services and (control := urljoin(url, services[wanted].get("controlURL", ""))):
            if urlsplit(control).hostname != router:
                raise ValueError("it takes orders elsewhere")
            return Router(control, services[wanted]["serviceType"], _own_address(router))
    raise ValueError("it does not connect to the Internet")


def _own_address(router: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((router, 9))
        return str(probe.getsockname()[0])


async def _http(verb: str, url: str, head: dict[str, str], body: bytes) -> tuple[int, bytes]:
    """One request of HTTP/1.0: the answer ends with the connection. Raises OSError, ValueError, TimeoutError."""
    where = urlsplit(url)
    lines = [f"{verb} {where.path or '/'} HTTP/1.0", f"Host: {where.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in head.items()]
    async with asyncio.timeout(_ASK_SECONDS):
        reader, writer = await asyncio.open_connection(where.hostname, where.port or 80)
        try:
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            answer = b""
            while data := await reader.read(65_536):
                answer += data
                if len(answer) > _LARGEST or _whole(answer):
                    break
        finally:
            writer.close()
    top, _, rest = answer[:_LARGEST].partition(b"\r\n\r\n")
    status = top.split(b" ", 2)
    if len(status) < 2 or not status[0].startswith(b"HTTP/") or not status[1].isdigit():
        raise ValueError("it does not speak HTTP")
    return int(status[1]), rest


def _whole(answer: bytes) -> bool:
    """Whether all that the header promises is here: some routers never hang up."""
    top, gap, rest = answer.partition(b"\r\n\r\n")
    for line in top.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip() == b"content-length" and value.strip().isdigit():
            return bool(gap) and len(rest) >= int(value)
    return False


def _xml(data: bytes) -> ElementTree.Element:
    """Raises ValueError."""
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise ValueError("it is XML with a document type")
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise ValueError(f"it is no XML: {error}") from None


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
