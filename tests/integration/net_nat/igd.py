"""A home router that opens ports when asked, as routers do: SSDP, a description, SOAP, and a rule that translates.

Foreign to Lading on purpose: written after the UPnP specifications and what routers send, not after our client.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from integration.net_nat.lab import Place

_GROUP = "239.255.255.250"
_DESCRIPTION = """<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion>
<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><friendlyName>Box</friendlyName>
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>
<controlURL>/ctl/IPConn</controlURL><eventSubURL>/evt/IPConn</eventSubURL><SCPDURL>/WANIPCn.xml</SCPDURL>
</service></serviceList></device></deviceList></device></deviceList></device></root>"""
_ANSWER = (
    '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
    '<u:{verb}Response xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1">{inside}</u:{verb}Response>'
    "</s:Body></s:Envelope>"
)
_FAULT = (
    '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault>'
    "<faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
    '<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>{code}</errorCode>'
    "<errorDescription>no</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>"
)
_OPENED = "table ip opened {{\n  chain pre {{\n    type nat hook prerouting priority -101\n    {rules}\n  }}\n}}\n"


class Igd:
    """At a home's router until closed. With `fault` (a UPnP error code) it refuses. `opened`: outer port to inner."""

    def __init__(self, router: Place, fault: str = "") -> None:
        self.router, self.fault = router, fault
        self.opened: dict[int, tuple[str, int]] = {}
        igd = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._say(200, _DESCRIPTION)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self._say(*igd.order(self.headers["SOAPAction"], body))

            def _say(self, code: int, text: str) -> None:
                data = text.encode()
                self.send_response(code)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *words: Any) -> None: ...

        with router.inside():
            self._http = HTTPServer((router.address, 5000), Handler)
            self._ssdp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._ssdp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._ssdp.bind(("", 1900))
            group = struct.pack("4s4s", socket.inet_aton(_GROUP), socket.inet_aton(router.address))
            self._ssdp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        self._ssdp.settimeout(0.1)
        self._closing = False
        self._threads = [threading.Thread(target=work) for work in (self._serve, self._answer)]
        for thread in self._threads:
            thread.start()

    def order(self, action: str, body: str) -> tuple[int, str]:
        verb = action.strip('"').rpartition("#")[2]
        given = dict(re.findall(r"<(New\w+)>([^<]*)</", body))
        if self.fault:
            return 500, _FAULT.format(code=self.fault)
        match verb:
            case "GetExternalIPAddress":
                inside = f"<NewExternalIPAddress>{self.router.outside}</NewExternalIPAddress>"
                return 200, _ANSWER.format(verb=verb, inside=inside)
            case "AddPortMapping" if given["NewProtocol"] == "TCP" and int(given["NewLeaseDuration"]) > 0:
                inner = given["NewInternalClient"], int(given["NewInternalPort"])
                self.opened[int(given["NewExternalPort"])] = inner
            case "DeletePortMapping":
                self.opened.pop(int(given["NewExternalPort"]))
            case _:
                return 500, _FAULT.format(code="401")
        rules = "\n    ".join(
            f'iifname "wan" tcp dport {port} dnat to {host}:{inner}' for port, (host, inner) in self.opened.items()
        )
        self.router.rules("table ip opened\ndelete table ip opened\n" + _OPENED.format(rules=rules))
        return 200, _ANSWER.format(verb=verb, inside="")

    def close(self) -> None:
        self._closing = True
        self._http.shutdown()
        for thread in self._threads:
            thread.join()
        self._http.server_close()
        self._ssdp.close()

    def _serve(self) -> None:
        self.router.enter()  # the rules are made in this thread
        self._http.serve_forever(0.05)

    def _answer(self) -> None:
        while not self._closing:
            try:
                data, where = self._ssdp.recvfrom(2048)
            except TimeoutError:
                continue
            wanted = re.search(rb"\r\nST: ?(\S+)", data)
            if not data.startswith(b"M-SEARCH") or wanted is None or not wanted[1].endswith(b"GatewayDevice:1"):
                continue
            lines = (
                "HTTP/1.1 200 OK",
                "CACHE-CONTROL: max-age=120",
                f"ST: {wanted[1].decode()}",
                "USN: uuid:0::urn:schemas-upnp-org:device:InternetGatewayDevice:1",
                "EXT:",
                "SERVER: Box/1.0 UPnP/1.1 MiniUPnPd/2.2",
                f"LOCATION: http://{self.router.address}:5000/rootDesc.xml",
            )
            self._ssdp.sendto(("\r\n".join(lines) + "\r\n\r\n").encode(), where)
