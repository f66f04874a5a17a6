"""The node's settings: file < environment (LADING_NODE_*) < flags, read by lading.settings into one frozen struct.

Turns them into the Plan and the values that `main` builds doors from; opens nothing itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from lading import settings as files
from lading_node.agents import Serving
from lading_node.core.policy import Policy
from lading_node.engines.openai_wire import Endpoint
from lading_node.errors import BadSettings
from lading_node.node import Plan
from lading_protocol.errors import BadAmount
from lading_protocol.ids import AgentId, TermsId, digest
from lading_protocol.pricing import Price, parse_amount

Port = Annotated[int, Meta(ge=0, le=65535)]


class AgentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One agent to serve. Prices are in whole coins per 1,000 tokens; what is left out follows the node's own.

    `endpoint` names one of the node's `endpoints`: the model server that runs an agent of the engine openai-http.
    """

    digest: str
    terms: str = ""
    price_in: str = ""
    price_out: str = ""
    slots: Annotated[int, Meta(ge=0, le=4096)] = 0
    follow: bool | None = None
    endpoint: str = ""


class NodeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything an operator may set, as `[node]` in the file, LADING_NODE_<NAME>, or --<name>.

    `agents` are digests, or tables of AgentSettings in the file. `listen`, `announce`, `coordinators`, `gossip_listen`
    and `bootstrap` are multiaddrs; an empty `gossip_listen` leaves the gossip network out. `network_key` is the swarm
    key file of a private network (empty: the public one). `http` is the port of the local status page (0: any free
    one, -1: none). Times are seconds, `pace` tokens per second and job, `memory` MiB for
    one engine (0: no limit). `quota` is in bytes, `serve_rate` and `serve_peer_rate` (packages given to others, in all
    and to each) in bytes per second, 0 for no limit. `ray` is the head of a Ray cluster whose machines run the engines
    ("": this one does), at most `ray_members` engines of each agent (0: as many as there is room for).
    `require_isolation`: no model is served where the self-test of its tier failed. `docker` is the socket of a
    container engine, such as unix:///var/run/docker.sock (empty: agents in images are not served).
    `endpoints` are OpenAI-compatible servers, tables of url, model, key, continues and takes in the file.
    `redeem_threshold` is in whole coins, and so is `appeal_bond`: the largest bond that the operator key puts up to
    appeal a conviction, of this node or one that outvoted its own re-run as a juror (0: it never does).
    `audit_credit`: how many findings in a row an asker may leave unpaid before it gets no more (0: any number).
    `anchor_every`: how often a root over new receipts is put on the chain (0: never). `follow`: whether an agent
    gives way to the later releases that its publisher points to. `upnp`: whether a home router is asked to open our
    port. `lan`: whether peers are looked for in the local network, by multicast. `streams_rate`: how many streams a
    second one machine may open here, such as a coordinator with that many jobs; eight seconds' worth at once.
    """

    data: str = "~/.lading/node"
    key: str = ""
    chain_url: str = "http://127.0.0.1:8545"
    deployment: str = ""
    agents: tuple[str | AgentSettings, ...] = ()
    price_in: str = "0.001"
    price_out: str = "0.002"
    slots: Annotated[int, Meta(ge=1, le=4096)] = 4
    credit: Annotated[int, Meta(ge=1, le=65536)] = 64
    follow: bool = True
    region: Annotated[str, Meta(max_length=64, pattern=r"^([a-z0-9]+(-[a-z0-9]+)*)?$")] = ""
    pace: Annotated[float, Meta(ge=0)] = 0.0
    listen: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/4101",)
    announce: tuple[str, ...] = ()
    upnp: bool = True
    coordinators: tuple[str, ...] = ()
    gossip_listen: str = "/ip4/0.0.0.0/tcp/4102"
    bootstrap: tuple[str, ...] = ()
    lan: bool = True
    network_key: str = ""
    streams_rate: Annotated[int, Meta(ge=64, le=1 << 20)] = 1024
    http: Annotated[int, Meta(ge=-1, le=65535)] = 4180
    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    memory: Annotated[int, Meta(ge=0)] = 0
    quota: Annotated[int, Meta(ge=1)] = 1 << 38
    serve_rate: Annotated[int, Meta(ge=0)] = 0
    serve_peer_rate: Annotated[int, Meta(ge=0)] = 0
    require_isolation: bool = True
    ray: str = ""
    ray_members: Annotated[int, Meta(ge=0, le=4096)] = 0
    docker: str = ""
    endpoints: dict[str, Endpoint] = {}
    redeem_threshold: str = "1"
    redeem_age: Annotated[float, Meta(gt=0)] = 3600.0
    redeem_at_stop: bool = True
    drain: Annotated[float, Meta(ge=0)] = 20.0
    chain_poll: Annotated[float, Meta(gt=0)] = 1.0
    anchor_every: Annotated[float, Meta(ge=0)] = 600.0
    appeal_bond: str = "200"
    audit_credit: Annotated[int, Meta(ge=0)] = 256

    @property
    def folder(self) -> Path:
        return Path(self.data).expanduser()

    @property
    def key_path(self) -> Path:
        return Path(self.key).expanduser() if self.key else self.folder / "key"

    @property
    def deployment_path(self) -> Path:
        return Path(self.deployment).expanduser() if self.deployment else Path("~/.lading/deployment.json").expanduser()


def read(flags: Mapping[str, Any] | None = None, file: Path | None = None, **kwargs: Any) -> NodeSettings:
    """Raises lading.errors.BadSettings, naming the key, where its value came from, and what is wrong with it."""
    return files.read(NodeSettings, "node", flags or {}, file, **kwargs)


def wanted(settings: NodeSettings) -> tuple[AgentSettings, ...]:
    """The agents to serve, each with its own or the node's price and slots filled in."""
    filled = []
    for one in settings.agents:
        agent = AgentSettings(one) if isinstance(one, str) else one
        filled.append(
            msgspec.structs.replace(
                agent,
                price_in=agent.price_in or settings.price_in,
                price_out=agent.price_out or settings.price_out,
                slots=agent.slots or settings.slots,
                follow=settings.follow if agent.follow is None else agent.follow,
            )
        )
    return tuple(filled)


def agent_of(agent: AgentSettings) -> AgentId:
    """Raises BadSettings."""
    try:
        return AgentId(digest(agent.digest))
    except ValueError as error:
        raise BadSettings(f"The setting node.agents is wrong: {error}.") from None


def serving(agent: AgentSettings, terms: TermsId, settings: NodeSettings, decimals: int) -> Serving:
    """Raises BadSettings for a price that is no amount."""
    price = Price(
        _amount("node.price_in", agent.price_in, decimals), _amount("node.price_out", agent.price_out, decimals)
    )
    follow = settings.follow if agent.follow is None else agent.follow
    return Serving(agent_of(agent), terms, price, agent.slots, settings.credit, follow=follow, region=settings.region)


def plan(settings: NodeSettings, agents: tuple[Serving, ...], decimals: int, outward: str) -> Plan:
    threshold = _amount("node.redeem_threshold", settings.redeem_threshold, decimals)
    return Plan(
        agents=agents,
        listen=settings.listen,
        announce=settings.announce,
        outward=outward,
        coordinators=settings.coordinators,
        policy=Policy(threshold, settings.redeem_age),
        drain=settings.drain,
        redeem_at_stop=settings.redeem_at_stop,
        pace=settings.pace,
        chain_poll=settings.chain_poll,
        anchor_every=settings.anchor_every,
        upnp=settings.upnp,
        appeal_bond=_amount("node.appeal_bond", settings.appeal_bond, decimals),
        audit_credit=settings.audit_credit,
    )


def _amount(name: str, text: str, decimals: int) -> Any:
    try:
        return parse_amount(text, decimals)
    except BadAmount as error:
        raise BadSettings(f"The setting {name} is wrong: {error}") from error
