"""The status page: one HTML document without scripts or outside assets, readable on a phone."""

import time
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, Template

from lading_coordinator.http.views import Views

RECENT = 20


def render(views: Views) -> str:
    parts = views.parts
    values: dict[str, Any] = {
        "agents": views.agents(),
        "hosts": views.hosts(),
        "jobs": views.recent_jobs(RECENT),
        "audits": views.audits(RECENT),
        "chain_up": parts.watch.up,
        "head": parts.watch.head,
        "chain_id": parts.deployment.chain_id,
        "symbol": parts.deployment.symbol,
        "http": parts.detail().http,
        "now": parts.clock(),
    }
    return _template().render(values)


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["short"] = lambda text: text[:10] + "…" if len(text) > 12 else text
    environment.filters["clock"] = lambda at: time.strftime("%H:%M:%S", time.gmtime(at))
    environment.filters["coins"] = _coins
    return environment.from_string(Path(__file__).with_name("page.html").read_text("utf-8"))


def _coins(text: str) -> str:
    """At most six decimals; never rounded up."""
    whole, dot, fraction = text.partition(".")
    return f"{whole}.{fraction[:6]}" if dot else whole
