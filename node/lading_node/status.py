"""What a node says about itself: the status record, why it earns nothing, whether it is ready, and metrics as text.

Pure reading: asks nobody and changes nothing.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from lading_net.core.guard import REFUSALS
from lading_node.agents import Agent
from lading_node.channels import describe
from lading_node.core.channel import Channel, outstanding
from lading_node.node import Node
from lading_node.releases import origin_of
from lading_protocol import VERSION
from lading_protocol.ids import to_hex
from lading_protocol.pricing import format_amount

MOST_CHANNELS = 100


def money(channels: list[Channel]) -> dict[str, str]:
    """Wei over all channels, as strings: JSON numbers are not wide enough."""
    return {
        "earned": str(sum(one.earned for one in channels)),
        "signed": str(sum(one.signed for one in channels)),
        "redeemed": str(sum(one.redeemed for one in channels)),
        "unredeemed": str(sum(max(0, one.signed - one.redeemed) for one in channels)),
        "unpaid": str(sum(outstanding(one) for one in channels)),
    }


def coin(node: Node) -> dict[str, Any]:
    """How the amounts of these pages are shown to people."""
    record = node.doors.contracts.deployment
    return {"symbol": record.symbol, "decimals": record.decimals}


def shown(wei: str, coin: Mapping[str, Any] | None) -> str:
    """An amount of a page for a person, by the page's `coin`."""
    if coin is None:
        return f"{wei} wei"
    return f"{format_amount(int(wei), coin['decimals'])} {coin['symbol']}"


def why_not_earning(node: Node) -> list[str]:
    """In order of weight; empty when nothing stands in the way."""
    reasons = []
    if node.draining:
        reasons.append("The node is shutting down.")
    if node.doors.ledger.trouble:
        reasons.append(f"The ledger cannot be written: {node.doors.ledger.trouble}")
    if not node.agents:
        reasons.append("No agent is served. Name one with --agent DIGEST.")
    reasons += [
        f"Agent {to_hex(a.serving.agent)}: {a.why}" for a in node.agents if a.state not in ("serving", "replaced")
    ]
    reasons += _unreachable(node)
    reasons += [node.clockwatch.words] if node.clockwatch.words else []
    if node.standing.warning:
        reasons.append(node.standing.warning)
    if node.chain_trouble:
        reasons.append(f"The chain does not answer, so new payers cannot be checked: {node.chain_trouble}")
    if not reasons and not node.desk.totals.jobs:
        refused = ", ".join(f"{count} x {code}" for code, count in sorted(node.desk.refusals.items()))
        reasons.append(
            f"No job was taken yet; refused were: {refused}." if refused else "No request has come since it started."
        )
    return reasons


def _unreachable(node: Node) -> list[str]:
    found = node.presence.coordinators
    if any(one.linked for one in found):
        return []
    if not found and node.doors.gossip is None:
        return ["No coordinator is configured and gossip is off: nobody can find this node."]
    if not found:
        return ["No coordinator was heard of yet."]
    return [f"The coordinator at {one.endpoints[0]} is not linked: {one.state}" for one in found if one.endpoints]


def readiness(node: Node) -> list[str]:
    """Why no job can be taken right now; empty when one can."""
    reasons = []
    if node.draining:
        reasons.append("shutting down")
    if node.doors.ledger.trouble:
        reasons.append(node.doors.ledger.trouble)
    if not any(agent.state == "serving" for agent in node.agents):
        reasons.append("no agent is being served")
    return reasons


def status(node: Node) -> dict[str, Any]:
    channels = node.channels.all()
    most = sorted(channels, key=lambda one: (-len(one.running), -one.earned))[:MOST_CHANNELS]
    return {
        "operator": to_hex(node.address),
        "protocol": VERSION,
        "uptime": int(node.doors.clock() - node.since),
        "endpoints": list(node.endpoints),
        "ready": not readiness(node),
        "why_not_earning": why_not_earning(node),
        "notices": list(node.releases.notices()),
        "agents": [_agent(agent) | {"release": _release(node, agent)} for agent in node.agents],
        "coin": coin(node),
        "earnings": money(channels),
        "jobs": {
            "running": node.desk.running,
            "done": node.desk.totals.jobs,
            "failed": node.desk.totals.failed,
            "refused": node.desk.totals.refused,
            "refusals": dict(node.desk.refusals),
            "tokens": node.desk.totals.tokens,
        },
        "channels": [describe(one) for one in most],
        "coordinators": [
            {
                "address": to_hex(one.address) if one.address else None,
                "endpoints": list(one.endpoints),
                "linked": one.linked,
                "state": one.state,
            }
            for one in node.presence.coordinators
        ],
        "ways": [msgspec.to_builtins(way) for way in node.reach.ways()],
        "clock": node.clockwatch.words,
        "turned_away": turned_away(node),
        "settling": _settling(node),
        "chain": {"trouble": node.chain_trouble},
        "stake": _stake(node),
        "jury": [
            {"dispute": to_hex(duty.dispute), "round": duty.seat.round, "state": duty.note}
            for duty in node.juror.duties.values()
        ],
        "audits": node.auditor.checked,
        "audit_fees_wei": str(node.takings.taken),
    }


def turned_away(node: Node) -> dict[str, int]:
    """What the limits of the direct network kept out since the start, by kind; empty where there is no such network."""
    return dict(node.doors.direct.guard.refused) if node.doors.direct is not None else {}


def turned_away_words(counts: dict[str, int]) -> str:
    """Empty while nobody was."""
    told = [f"{count} {REFUSALS[kind]}" for kind, count in counts.items() if count]
    return f"Turned away by the limits: {', '.join(told)}." if told else ""


def _agent(agent: Agent) -> dict[str, Any]:
    return {
        "agent": to_hex(agent.serving.agent),
        "name": agent.package.manifest.name if agent.package else None,
        "state": agent.state,
        "why": agent.why,
        "terms": to_hex(agent.serving.terms),
        "terms_sunset_at": agent.serving.sunset_at or None,
        "price_in": str(agent.serving.price.input),
        "price_out": str(agent.serving.price.output),
        "slots": agent.slots,
        "active": agent.active,
        "crashes": agent.crashes,
        "offer": to_hex(agent.offer.id) if agent.offer else None,
        "device": agent.offer.detail.device if agent.offer else None,
    }


def _release(node: Node, agent: Agent) -> dict[str, Any]:
    line = node.releases.line(agent)
    origin = origin_of(agent.serving)
    return {
        "named": to_hex(origin),
        "follow": agent.serving.follow,
        "sequence": line.sequence if line is not None else 0,
        "wanted": to_hex(line.wanted) if line is not None else None,
        "trouble": node.releases.trouble.get(origin, ""),
    }


def _settling(node: Node) -> dict[str, Any]:
    settler = node.settler
    return {"status": settler.status, "transactions": settler.transactions, "on_the_way": settler.on_the_way}


def _stake(node: Node) -> dict[str, Any]:
    operator = node.standing.operator
    return {
        "amount": str(operator.stake) if operator else "0",
        "owner": to_hex(operator.owner) if operator else None,
        "minimum": str(node.standing.minimum),
        "warning": node.standing.warning,
        "disputes": list(node.standing.disputes),
    }


def metrics(node: Node) -> str:
    """Prometheus text format 0.0.4. Money is in wei as floats there, for graphs only."""
    totals = node.desk.totals
    sums = money(node.channels.all())
    values: list[tuple[str, str, str, object]] = [
        ("lading_node_jobs_total", "counter", "Attempts that were accepted and have ended.", totals.jobs),
        ("lading_node_jobs_failed_total", "counter", "Of these, ended by a failure of this host.", totals.failed),
        (
            "lading_node_jobs_preempted_total",
            "counter",
            "Batch jobs that gave their slot to an interactive one.",
            totals.preempted,
        ),
        ("lading_node_jobs_refused_total", "counter", "Opens that were refused.", totals.refused),
        ("lading_node_tokens_total", "counter", "Output tokens delivered.", totals.tokens),
        ("lading_node_jobs_running", "gauge", "Attempts running now.", node.desk.running),
        ("lading_node_earned_wei", "gauge", "Earned over all channels.", sums["earned"]),
        ("lading_node_unpaid_wei", "gauge", "Earned and not signed for.", sums["unpaid"]),
        ("lading_node_unredeemed_wei", "gauge", "Signed for and not redeemed.", sums["unredeemed"]),
        ("lading_node_redeem_transactions_total", "counter", "Settlement transactions.", node.settler.transactions),
        ("lading_node_engine_crashes_total", "counter", "Engine failures.", sum(a.crashes for a in node.agents)),
        ("lading_node_audits_total", "counter", "Cases re-run for others.", node.auditor.checked),
        ("lading_node_ready", "gauge", "1 while a job can be taken.", int(not readiness(node))),
        (
            "lading_node_coordinators_linked",
            "gauge",
            "Live links to coordinators.",
            sum(one.linked for one in node.presence.coordinators),
        ),
    ]
    text = "".join(f"# HELP {n} {text}\n# TYPE {n} {kind}\n{n} {value}\n" for n, kind, text, value in values)
    return text + _refused(turned_away(node))


def _refused(counts: dict[str, int]) -> str:
    name = "lading_net_refused_total"
    head = f"# HELP {name} What the limits of the network kept out, by kind.\n# TYPE {name} counter\n"
    return head + "".join(f'{name}{{kind="{kind}"}} {count}\n' for kind, count in counts.items()) if counts else ""
