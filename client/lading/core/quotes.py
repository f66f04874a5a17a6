"""What a request comes to in a question for quotes, and back. Pure."""

from typing import Final

from lading.core.matching import Aim, Filters
from lading_protocol.ids import AgentId, Wei
from lading_protocol.pricing import Price
from lading_protocol.summaries import MOST_QUOTES, WantQuotes

MOST_COUNT: Final = 2**32 - 1


def want_of(agent: AgentId, aim: Aim, most: int = MOST_QUOTES) -> WantQuotes:
    filters, cap = aim.filters, aim.cap
    return WantQuotes(
        agent=agent,
        operation=aim.operation,
        prompt=min(aim.prompt, MOST_COUNT),
        output=min(aim.output, MOST_COUNT),
        length=min(aim.length, MOST_COUNT),
        near=filters.near,
        region=filters.region,
        tiers=tuple(sorted(filters.tiers))[:8],
        levels=tuple(sorted(filters.assurance))[:8],
        cap_in="" if cap is None else str(cap.input),
        cap_out="" if cap is None else str(cap.output),
        most=most,
    )


def aim_asked(want: WantQuotes) -> Aim:
    cap = Price(Wei(int(want.cap_in)), Wei(int(want.cap_out))) if want.cap_in and want.cap_out else None
    filters = Filters(frozenset(want.tiers), want.region, want.near, frozenset(want.levels))
    return Aim(want.prompt, want.output, want.length, want.prompt, want.operation, cap, frozenset(), filters)
