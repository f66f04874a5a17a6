"""Flags that the commands of a node share, each with its one sentence. A field is named as its setting."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lading.cli.flags import ChainUrl, Json
from lading_node import settings as settings_
from lading_node.settings import NodeSettings

Data = Annotated[str | None, Parameter(help="Folder of the ledger, the packages and the key (default ~/.lading/node).")]
OperatorKey = Annotated[str | None, Parameter(help="The operator's key file (default in the data folder).")]
Record = Annotated[str | None, Parameter(help="The network's deployment record (default ~/.lading/deployment.json).")]
Docker = Annotated[
    str | None,
    Parameter(help="The socket of a container engine, such as unix:///var/run/docker.sock, for agents in images."),
]
StatusPort = Annotated[int | None, Parameter(help="Port of the running node's status page.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Operator:
    """Which node on this machine."""

    data: Data = None
    key: OperatorKey = None
    as_json: Json = False

    def settings(self, file: Path | None = None) -> NodeSettings:
        """Raises BadSettings."""
        flags: Mapping[str, Any] = {name: value for name, value in asdict(self).items() if name != "as_json"}
        return settings_.read(flags, file)


@Parameter(name="*")
@dataclass(frozen=True)
class OnChain(Operator):
    """And on which network."""

    deployment: Record = None
    chain_url: ChainUrl = None


Strings = tuple[str, ...] | None


@Parameter(name="*")
@dataclass(frozen=True)
class Serving(OnChain):
    """How a node serves: what most operators set once, in the settings file."""

    agents: Annotated[
        Strings,
        Parameter(name="--agent", help="Digest of an agent to serve; fetched when it is not here (repeatable)."),
    ] = None
    price_in: Annotated[str | None, Parameter(help="Coins per 1,000 prompt tokens.")] = None
    price_out: Annotated[str | None, Parameter(help="Coins per 1,000 output tokens.")] = None
    slots: Annotated[int | None, Parameter(help="Jobs at once for each agent.")] = None
    credit: Annotated[int | None, Parameter(help="Output tokens delivered ahead of payment.")] = None
    follow: Annotated[
        bool | None,
        Parameter(help="Give way to the later releases that an agent's publisher points to (the default)."),
    ] = None
    region: Annotated[
        str | None,
        Parameter(help="Where this machine stands, such as eu-de. Near consumers are sent here first."),
    ] = None
    pace: Annotated[float | None, Parameter(help="Most output tokens per second and job; 0 for no limit.")] = None
    listen: Annotated[Strings, Parameter(help="Where jobs come in, as a multiaddr (repeatable).")] = None
    announce: Annotated[Strings, Parameter(help="What offers name instead, behind a port forwarding (repeatable).")] = (
        None
    )
    upnp: Annotated[bool | None, Parameter(help="Ask a home router to open our port (the default).")] = None
    coordinators: Annotated[
        Strings, Parameter(name="--coordinator", help="Multiaddr of a coordinator to stay linked to (repeatable).")
    ] = None
    gossip_listen: Annotated[str | None, Parameter(help="Where gossip (libp2p) listens; empty leaves gossip out.")] = (
        None
    )
    bootstrap: Annotated[Strings, Parameter(help="Multiaddr of any libp2p peer of the network (repeatable).")] = None
    network_key: Annotated[
        str | None,
        Parameter(help="The swarm key file of a private network; whoever lacks it does not learn of this node."),
    ] = None
    http: Annotated[int | None, Parameter(help="Port of the local status page; 0 for any free one, -1 for none.")] = (
        None
    )
    docker: Docker = None
    redeem_threshold: Annotated[
        str | None, Parameter(help="Coins that vouchers must be worth before they are redeemed.")
    ] = None
    redeem_age: Annotated[
        float | None, Parameter(help="Seconds after which they are redeemed whatever they are worth.")
    ] = None
    drain: Annotated[float | None, Parameter(help="Seconds that running jobs get when the node is stopped.")] = None
