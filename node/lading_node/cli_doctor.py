"""`lading node doctor`: which ways lead to this machine, why the others do not, and what to do. Looks by `doctor`."""

import json

import msgspec

from lading.cli.flags import Json
from lading.cli.output import UNHEALTHY, emit, emit_rows, out
from lading_net.private import network_key
from lading_node import cli
from lading_node import doctor as doctor_
from lading_node import settings as settings_
from lading_node.cli_flags import StatusPort
from lading_node.doctor import Diagnosis, Looked
from lading_node.reach import outward

_WORDS = {True: "yes", False: "no", None: "unknown"}


async def doctor(
    *,
    listen: tuple[str, ...] | None = None,
    announce: tuple[str, ...] | None = None,
    coordinator: tuple[str, ...] | None = None,
    upnp: bool | None = None,
    http: StatusPort = None,
    as_json: Json = False,
) -> int:
    """Which ways lead to this machine, why the others do not, and what to do. Exits 3 when none does.

    Asks the running node, if there is one; otherwise listens for a moment and asks the coordinators to call back.

    Parameters
    ----------
    listen
        Where jobs would come in, as a multiaddr.
    announce
        What offers would name instead, behind a port forwarding.
    coordinator
        Multiaddr of a coordinator to ask (repeatable).
    upnp
        Ask a home router to open our port for the moment (the default).
    """
    flags = {"listen": listen, "announce": announce, "coordinators": coordinator, "upnp": upnp, "http": http}
    settings = settings_.read(flags)
    running = await cli.page(settings)
    if running and coordinator is None:
        found = doctor_.of_running(running)
    else:
        network = network_key(settings.network_key)
        asked = Looked(settings.listen, settings.announce, settings.coordinators, outward(), settings.upnp, network)
        found = await doctor_.look(asked)
    _show(found, as_json)
    return 0 if found.healthy else UNHEALTHY


def _show(found: Diagnosis, as_json: bool) -> None:
    if as_json:
        print(json.dumps(msgspec.to_builtins(found)))
        return
    facts = {"this machine": found.address, "the world sees": found.outside, "in between": found.kind}
    emit({name: value for name, value in facts.items() if value}, as_json)
    rows = [{"way": way.name, "works": _WORDS[way.works], "at": way.endpoint or "-"} for way in found.ways]
    emit_rows(rows, as_json, "")
    for way in found.ways:
        if not way.works:
            out.print(f"- {way.name}: {way.why} {way.todo}".rstrip(), markup=False, soft_wrap=True)
    if found.clock:
        out.print(f"- clock: {found.clock}", markup=False, soft_wrap=True)
    if found.healthy:
        out.print("Work can reach this machine.")
    else:
        out.print("No way leads to this machine: it cannot earn.")
