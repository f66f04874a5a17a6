"""The status page and the market page: HTML without scripts or outside assets, readable on a phone."""

import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lading_coordinator.http.market import MarketViews
from lading_coordinator.http.views import Views

if TYPE_CHECKING:
    from jinja2 import Environment

RECENT = 20


def render(views: Views) -> str:
    parts = views.parts
    values: dict[str, Any] = {
        "agents": views.agents(),
        "hosts": views.hosts(),
        "jobs": views.recent_jobs(RECENT),
        "audits": views.audits(RECENT),
        "regions": parts.regions.tree(),
        "chain_up": parts.watch.up,
        "head": parts.watch.head,
        "chain_id": parts.deployment.chain_id,
        "symbol": parts.deployment.symbol,
        "http": parts.detail().http,
        "now": parts.clock(),
        "clock_wrong": parts.clockwatch.words,
    }
    return _templates().get_template("page.html").render(values)


def render_market(views: Views) -> str:
    deployment = views.parts.deployment
    tree = MarketViews(views).tree()
    return (
        _templates()
        .get_template("market.html")
        .render(market=tree, chain_id=deployment.chain_id, symbol=deployment.symbol)
    )


@cache
def _templates() -> "Environment":
    from jinja2 import Environment, FileSystemLoader  # a coordinator whose pages nobody looks at does without

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["short"] = lambda text: text[:10] + "…" if len(text) > 12 else text
    environment.filters["ending"] = lambda text: "…" + text[-8:]  # jobs of one minute begin alike
    environment.filters["clock"] = lambda at: time.strftime("%H:%M:%S", time.gmtime(at))
    environment.filters["moment"] = lambda at: time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
    environment.filters["hours"] = lambda seconds: f"{seconds / 3600:g} h"
    environment.filters["share"] = lambda bps: f"{bps / 100:g} %"
    environment.filters["coins"] = _coins
    return environment


def _coins(text: str) -> str:
    """At most six decimals; never rounded up."""
    whole, dot, fraction = text.partition(".")
    return f"{whole}.{fraction[:6]}" if dot else whole
