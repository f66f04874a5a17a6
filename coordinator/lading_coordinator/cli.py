"""`lading coordinator`: runs one, and asks a running one how it is. Flags override environment and settings file."""

import asyncio
import logging
import sys
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
from cyclopts import App, Parameter

from lading.cli.flags import ChainUrl, Json
from lading.cli.output import UNHEALTHY, emit, out, report
from lading.settings import read
from lading_coordinator.settings import CoordinatorSettings
from lading_protocol.errors import LadingError

app = App(name="coordinator", help="Run a gateway with its index and its audits.")


@Parameter(name="*")
@dataclass(frozen=True)
class Flags:
    """How a coordinator is set up, each field named as its setting."""

    home: Annotated[str | None, Parameter(help="Folder of its ledger, its packages and its key.")] = None
    chain_url: ChainUrl = None
    deployment: Annotated[
        str | None, Parameter(help="The network's deployment record (default ~/.lading/deployment.json).")
    ] = None
    key: Annotated[str | None, Parameter(help="Its key file; made when missing.")] = None
    ledger: Annotated[
        str | None,
        Parameter(
            help="postgresql://user@host/database to keep its records on a server (default: a file in the home folder)."
        ),
    ] = None
    http_host: Annotated[
        str | None, Parameter(help="Where HTTP listens: 127.0.0.1 for this machine only, 0.0.0.0 for everyone.")
    ] = None
    http_port: Annotated[int | None, Parameter(help="For HTTP; 0 takes any free one.")] = None
    http_public: Annotated[
        str | None, Parameter(help="The address that people are told instead, such as https://example.org.")
    ] = None
    listen: Annotated[str | None, Parameter(help="Where nodes dial in, as a multiaddr.")] = None
    announce: Annotated[
        list[str] | None,
        Parameter(help="What nodes are told instead, behind a port forwarding (repeatable)."),
    ] = None
    gossip: Annotated[str | None, Parameter(help="Where gossip (libp2p) listens; empty leaves gossip out.")] = None
    bootstrap: Annotated[
        list[str] | None, Parameter(help="Multiaddr of any libp2p peer of the network (repeatable).")
    ] = None
    network_key: Annotated[
        str | None,
        Parameter(help="The swarm key file of a private network; whoever lacks it does not learn of this coordinator."),
    ] = None
    audit_rate: Annotated[
        float | None,
        Parameter(help="The least share of receipts that is checked, 0 to 1; of new and of suspect hosts it is more."),
    ] = None
    audit_period: Annotated[float | None, Parameter(help="Seconds between two looks for work of the auditor.")] = None
    audit_beacon: Annotated[
        str | None,
        Parameter(help="Where the randomness of audits comes from: blocks, drand, or local (for tests)."),
    ] = None
    audit_canary_key: Annotated[
        str | None,
        Parameter(help="Key file of an operator of yours, under whose name known faults test the auditors."),
    ] = None
    require_stake: Annotated[
        bool | None, Parameter(help="Whether only hosts with a stake are chosen (the default).")
    ] = None
    workers: Annotated[
        int | None, Parameter(help="Processes that share the HTTP port, about one a core (default 1).")
    ] = None
    log_level: Annotated[str | None, Parameter(help="debug, info, warning or error (default info).")] = None


@app.command
def up(*, flags: Flags = Flags(), settings: Path | None = None, as_json: Json = False) -> int:
    """Start a coordinator and serve until told to stop. With --json its first line says where it is reached.

    Parameters
    ----------
    settings
        A settings file instead of ~/.lading/settings.toml.
    """
    from lading_coordinator.run import Started, announce_line, run_coordinator

    def ready(started: Started) -> None:
        if as_json:
            print(announce_line(started), flush=True)
            return
        out.print(f"Coordinator [bold]{started.address}[/]")
        out.print(f"  OpenAI base URL  {started.http}/v1")
        out.print(f"  status page      {started.http}/")
        out.print(f"  nodes dial       {', '.join(started.endpoints)}", soft_wrap=True)
        out.print(f"  bootstrap        {started.gossip or 'none (gossip is off)'}", soft_wrap=True)

    chosen = read(CoordinatorSettings, "coordinator", asdict(flags), settings)
    _log(chosen.log_level)
    _run(run_coordinator(chosen, ready))
    return 0


@app.command
def status(*, url: str = "http://127.0.0.1:8600", as_json: Json = False) -> int:
    """Ask a running coordinator whether it could serve now. Exits 3 when it could not.

    Parameters
    ----------
    url
        Its HTTP address.
    """
    try:
        tree = httpx.get(f"{url.rstrip('/')}/readyz", timeout=10).json()
        regions = httpx.get(f"{url.rstrip('/')}/lading/v1/regions", timeout=10)
        if regions.status_code == 200:  # an older coordinator has none
            tree |= _market(regions.json())
    except (httpx.HTTPError, ValueError) as error:
        hint = "Name another with --url, or start one: lading coordinator up."
        what = LadingError(f"The coordinator at {url} does not answer: {error}.", code="net_gateway", hint=hint)
        return report(what, as_json, UNHEALTHY)
    emit(tree, as_json)
    return 0 if tree.get("ready") else UNHEALTHY


def _market(tree: dict[str, Any]) -> dict[str, Any]:
    """What a coordinator has of the market, for a flat record."""
    indexed = tree["indexed"] if isinstance(tree["indexed"], str) else ", ".join(tree["indexed"])
    names = ("offers", "quoted_hosts", "summed_up", "memory_mb")
    return {"indexed": indexed} | {name: tree[name] for name in names} | {"coordinators": len(tree["coordinators"])}


def _log(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)
