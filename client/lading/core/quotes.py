"""When others are asked for quotes, what a request comes to in such a question, and back. Pure."""

from collections.abc import Sequence
from typing import Final

from lading.core.atlas import Hint
from lading.core.matching import Aim, Filters
from lading.core.why import SLICES, WINDOW, Choice
from lading_protocol.ids import AgentId, Wei
from lading_protocol.pricing import Price
from lading_protocol.summaries import MOST_QUOTES, WantQuotes

MOST_COUNT: Final = 2**32 - 1
# An answer is not asked for anew for so long.
FRESH_SECONDS: Final = 1.5
LEAST: Final = 8


def want_of(agent: AgentId, aim: Aim, most: int = LEAST) -> WantQuotes:
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


def worth_a_look(choice: Choice, hints: Sequence[Hint], *, pressing: bool) -> bool:
    """Whether, after this choice, others should be asked: nobody was found, or the one that was is full or known by
    hearsay, which ages (`pressing`); or the best of others would cost less, by the formula that chose."""
    if not hints:
        return False
    return choice.host is None or pressing or (hints[0].free > 0 and hints[0].score < choice.score)


def enough(choices: int) -> int:
    """How many offers to ask for, after so many choices within a slice of time: twice those that are wanted before the
    answer is asked for anew, at least some to compare."""
    return min(MOST_QUOTES, max(LEAST, int(2 * choices * FRESH_SECONDS * SLICES / WINDOW)))


def aim_asked(want: WantQuotes) -> Aim:
    cap = Price(Wei(int(want.cap_in)), Wei(int(want.cap_out))) if want.cap_in and want.cap_out else None
    filters = Filters(frozenset(want.tiers), want.region, want.near, frozenset(want.levels))
    return Aim(want.prompt, want.output, want.length, want.prompt, want.operation, cap, frozenset(), filters)
