"""`lading coordinator`: runs one, and asks a running one how it is. Flags override environment and settings file."""

import asyncio
import logging
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import httpx
from cyclopts import App, Parameter

from lading.cli.output import UNHEALTHY, emit, err, out
from lading.settings import read
from lading_coordinator.settings import CoordinatorSettings

app = App(name="coordinator", help="Run a gateway with its index and its audits.")

Json = Annotated[bool, Parameter(name="--json", negative="", show_default=False, help="Machine-readable output.")]
Endpoints = Annotated[list[str] | None, Parameter(negative="")]


@app.command
def up(
    *,
    home: str | None = None,
    chain_url: str | None = None,
    deployment: str | None = None,
    key: str | None = None,
    ledger: str | None = None,
    http_host: str | None = None,
    http_port: int | None = None,
    http_public: str | None = None,
    listen: str | None = None,
    announce: Endpoints = None,
    gossip: str | None = None,
    bootstrap: Endpoints = None,
    network_key: str | None = None,
    audit_rate: float | None = None,
    audit_period: float | None = None,
    audit_beacon: str | None = None,
    audit_canary_key: str | None = None,
    require_stake: bool | None = None,
    workers: int | None = None,
    log_level: str | None = None,
    settings: Path | None = None,
    as_json: Json = False,
) -> int:
    """Start a coordinator and serve until told to stop. With --json its first line says where it is reached.

    Parameters
    ----------
    home
        Folder of its ledger, its packages and its key.
    chain_url
        The chain's JSON-RPC address.
    deployment
        The network's deployment record (default ~/.lading/deployment.json).
    key
        Its key file; made when missing.
    ledger
        postgresql://user@host/database to keep its records on a server (default: a file in the home folder).
    http_host
        Where HTTP listens: 127.0.0.1 for this machine only, 0.0.0.0 for everyone.
    http_port
        For HTTP; 0 takes any free one.
    http_public
        The address that people are told instead, such as https://example.org.
    listen
        Where nodes dial in, as a multiaddr.
    announce
        Multiaddrs that nodes are told instead, behind a port forwarding.
    gossip
        Where gossip (libp2p) listens; empty leaves gossip out.
    bootstrap
        Multiaddr of any libp2p peer of the network.
    network_key
        The swarm key file of a private network, without which nobody learns that this coordinator is there.
    audit_rate
        The least share of receipts that is checked, 0 to 1; of new and of suspect hosts it is more.
    audit_period
        Seconds between two looks for work of the auditor.
    audit_beacon
        Where the randomness of audits comes from: blocks, drand, or local (for tests).
    audit_canary_key
        Key file of an operator of yours, under whose name known faults test the auditors.
    require_stake
        Whether only hosts with a stake are chosen.
    workers
        Processes that share the HTTP port, about one a core (default 1).
    log_level
        debug, info, warning or error.
    settings
        A settings file instead of ~/.lading/settings.toml.
    """
    flags = {name: value for name, value in locals().items() if name not in ("settings", "as_json")}
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

    chosen = read(CoordinatorSettings, "coordinator", flags, settings)
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
        err.print(f"[bold red]error[/] [dim]net_gateway[/]  The coordinator at {url} does not answer: {error}.")
        return UNHEALTHY
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
