"""The coordinator's settings: one frozen struct, read by lading.settings from [coordinator], environment and flags."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lading_coordinator.errors import BadSettings
from lading_protocol.errors import BadAmount
from lading_protocol.ids import Wei
from lading_protocol.pricing import parse_amount

Positive = Annotated[float, Meta(gt=0)]


class CoordinatorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Paths may begin with `~`; an empty `key` lies below `home`, an empty `deployment` is
    the user's own ~/.lading/deployment.json. Times are seconds.

    `ledger` is where its records are kept: a postgresql:// address, or empty for a file below `home`; the vouchers that
    it signs are always in a file there.
    `listen` is the direct link's multiaddr for nodes, `announce` what is told to others instead (a coordinator behind
    port forwarding). `gossip` is the libp2p multiaddr, empty to do without; `bootstrap` are peers to begin with.
    `network_key` is the swarm key file of a private network; empty: the public one.
    `serve_rate` and `serve_peer_rate` are bytes per second of packages given to hosts, in all and to each; 0: no limit.
    `http_public` is the address people are told. `region` is where its consumers are ("eu-de"), so that near hosts come
    first for those who do not say. Of what hosts gossip only offers in `regions` are kept, all if none is named; what
    others have is heard of in summaries, and asked for when it is wanted. What is linked here is summed up for others
    when it changed, at most every `summary_period`. With `relay` those who cannot reach each other do so through this
    coordinator, which sees ciphertext only: at most `relay_hosts` may be called that way, on `relay_links` connections
    at once (`relay_links_each` of one peer), each for `relay_seconds` and `relay_bytes` each way.

    `tls_cert` and `tls_key` are PEM files; with them the gateway speaks TLS. `max_body` bounds a request (bytes).

    With more than one of `workers` that many processes share the HTTP port, each with the API keys that fall to it.
    What is said of jobs below holds for all of them together.

    A key has at most `jobs_per_key` requests open, running or waiting. `jobs_at_once` run, and up to `jobs_waiting`
    wait for room at the hosts, `jobs_waiting_each` of one payer; none longer than `wait`, batch work `wait_batch`.

    `audit_rate` is the least share of receipts checked, 0 to 1: more are of new and of suspect hosts. `audit_beacon` is
    "blocks" (of the chain), "drand" or "local" (for tests: this coordinator knows what comes). `audit_drand` is the
    description of a drand network (its /info as JSON), empty for quicknet. `audit_beacon_delay` is how long after the
    anchor the beacon's round is out at the earliest, `audit_beacon_grace` how long it is waited for after that.
    `audit_beacon_blocks` blocks after the anchor are combined where blocks serve. A host has `audit_opening_pause`
    between two askings for its sketch. `audit_epoch` is the epoch of suspicion and of orders. `audit_canary_key` is
    the key file of an operator of one's own, under whose name known faults test the auditors; empty: there are none.
    An auditor gets the share `audit_pay` of an audited job's price for its finding (0: nothing), at most what it asks
    itself for as many prompt tokens and `audit_pay_most` coins; all get `audit_pay_epoch` coins an epoch at most. It
    comes out of the deposit of this coordinator's own account.
    """

    home: str = "~/.lading/coordinator"
    chain_url: str = "http://127.0.0.1:8545"
    deployment: str = ""
    key: str = ""
    ledger: str = ""
    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Meta(ge=0, le=65535)] = 8600
    http_public: str = ""
    region: Annotated[str, Meta(max_length=64, pattern=r"^([a-z0-9]+(-[a-z0-9]+)*)?$")] = ""
    regions: tuple[Annotated[str, Meta(max_length=64, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")], ...] = ()
    summary_period: Annotated[float, Meta(ge=0.5, le=60)] = 5.0
    http_others: tuple[str, ...] = ()
    listen: str = "/ip4/0.0.0.0/tcp/4600"
    announce: tuple[str, ...] = ()
    gossip: str = "/ip4/0.0.0.0/tcp/4601"
    bootstrap: tuple[str, ...] = ()
    network_key: str = ""
    relay: bool = True
    relay_hosts: Annotated[int, Meta(ge=0)] = 1024
    relay_links: Annotated[int, Meta(ge=0)] = 256
    relay_links_each: Annotated[int, Meta(ge=0)] = 16
    relay_seconds: Annotated[int, Meta(ge=1)] = 3600
    relay_bytes: Annotated[int, Meta(ge=1)] = 1 << 30
    require_stake: bool = True
    audits: bool = True
    audit_rate: Annotated[float, Meta(ge=0, le=1)] = 0.01
    audit_period: Positive = 30.0
    audit_beacon: Literal["blocks", "drand", "local"] = "blocks"
    audit_drand: str = ""
    audit_drand_urls: tuple[str, ...] = ("https://api.drand.sh", "https://drand.cloudflare.com")
    audit_beacon_delay: Annotated[float, Meta(ge=0)] = 30.0
    audit_beacon_grace: Positive = 600.0
    audit_beacon_blocks: Annotated[int, Meta(ge=1, le=200)] = 1
    audit_patience: Positive = 60.0
    audit_opening_pause: Positive = 300.0
    audit_epoch: Positive = 86_400.0
    audit_canary_key: str = ""
    audit_pay: Annotated[float, Meta(ge=0, le=1)] = 0.1
    audit_pay_most: str = "0.01"
    audit_pay_epoch: str = "10"
    default_tokens: Annotated[int, Meta(ge=1, le=131072)] = 512
    tls_cert: str = ""
    tls_key: str = ""
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    max_body: Annotated[int, Meta(ge=1024, le=1 << 30)] = 2 << 20
    jobs_per_key: Annotated[int, Meta(ge=1)] = 64
    jobs_at_once: Annotated[int, Meta(ge=1)] = 2048
    jobs_waiting: Annotated[int, Meta(ge=0)] = 1024
    jobs_waiting_each: Annotated[int, Meta(ge=0)] = 256
    wait: Positive = 20.0
    wait_batch: Positive = 120.0
    first_token_patience: Positive = 30.0
    token_patience: Positive = 8.0
    store_quota: Annotated[int, Meta(ge=1)] = 1 << 40
    serve_rate: Annotated[int, Meta(ge=0)] = 0
    serve_peer_rate: Annotated[int, Meta(ge=0)] = 0
    chain_poll: Positive = 1.0
    drain: Annotated[float, Meta(ge=0)] = 20.0
    log_level: str = "info"

    @property
    def home_path(self) -> Path:
        return Path(self.home).expanduser()

    @property
    def deployment_path(self) -> Path:
        return Path(self.deployment or "~/.lading/deployment.json").expanduser()

    @property
    def key_path(self) -> Path:
        return Path(self.key).expanduser() if self.key else self.home_path / "key"

    @property
    def rate_ppm(self) -> int:
        return round(self.audit_rate * 1_000_000)


def check(settings: CoordinatorSettings) -> None:
    """What the types cannot say. Raises BadSettings."""
    if settings.log_level.lower() not in ("debug", "info", "warning", "error"):
        raise BadSettings(f"The setting coordinator.log_level is {settings.log_level!r}.", hint="Use info or warning.")
    if settings.ledger and not settings.ledger.startswith(("postgresql://", "postgres://")):
        raise BadSettings(
            "The setting coordinator.ledger is not a PostgreSQL address.",
            hint="Write postgresql://user@host/database, or leave it empty for a file in the data folder.",
        )
    if not settings.chain_url.startswith(("http://", "https://")):
        raise BadSettings(f"The setting coordinator.chain_url is {settings.chain_url!r}.", hint="Give an http(s) URL.")


def amount_of(name: str, settings: CoordinatorSettings, decimals: int) -> Wei:
    """A setting in whole coins, in wei. Raises BadSettings."""
    try:
        return parse_amount(getattr(settings, name), decimals)
    except BadAmount as error:
        raise BadSettings(f"The setting coordinator.{name} is wrong: {error}") from None
