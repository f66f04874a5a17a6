"""`lading node why`: what the coordinators say about the jobs that this node got, and did not get."""

from typing import Any

from lading.cli.flags import Json
from lading.cli.output import UNHEALTHY, emit_rows, out, plain
from lading_node import settings as settings_
from lading_node.cli import nobody, page
from lading_node.cli_flags import StatusPort
from lading_node.status import shown

Tree = dict[str, Any]


async def why(*, http: StatusPort = None, as_json: Json = False) -> int:
    """Why this node gets work, or does not: each coordinator's account of the last minutes."""
    found = await page(settings_.read({"http": http}), "/why")
    if not found:
        return nobody(as_json)
    coordinators: list[Tree] = found["coordinators"]
    if as_json:
        emit_rows(coordinators, as_json, "")
    else:
        for text in told(found):
            out.print(plain(text), markup=False, soft_wrap=True)
    return 0 if any(not one["trouble"] for one in coordinators) else UNHEALTHY


def told(found: Tree) -> list[str]:
    """For a person: a line for each agent at each coordinator, its reasons below it, most frequent first."""
    lines = [f"At this node: {reason}" for reason in found["why_not_earning"]]
    for one in found["coordinators"]:
        who = f"Coordinator {one['coordinator'][:10]}…"
        if one["trouble"]:
            lines.append(f"{who} says nothing: {one['trouble']}")
        elif not one["agents"]:
            lines.append(f"{who} holds no offer of this node.")
        for agent in one["agents"]:
            lines += _account(who, agent, found.get("coin"))
    return lines or ["No coordinator is linked, so nobody chose, or passed over, this node."]


def _account(who: str, agent: Tree, coin: Tree | None) -> list[str]:
    name = agent["name"] or f"{agent['agent'][:10]}…"
    if not agent["jobs"]:
        return [f"{who}, {name}: nobody asked for it in the last 10 min."]
    lost = agent["jobs"] - agent["won"]
    minutes = max(1, round(agent["seconds"] / 60))
    lines = [f"{who}, {name}: lost {lost} of {agent['jobs']} jobs in the last {minutes} min."]
    lines += [f"  {one['count']} x {one['code']}: {one['words']}" for one in agent["reasons"]]
    if agent["price_in"] is not None:
        went, asked = (
            " / ".join(shown(agent[f"{whose}price_{way}"], coin) for way in ("in", "out")) for whose in ("", "my_")
        )
        lines.append(f"  The last one went for {went} per 1,000 tokens in / out; you ask {asked}.")
    return lines
