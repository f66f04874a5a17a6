"""When a host moves on to what an agent's publisher points to: decided from what it remembers and what the chain says.

A pointer is believed when it is signed by the publisher of what is served now, newer than every one that was taken
before, and names an agent of that publisher's own.
"""

from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from lading_protocol.ids import Address, AgentId, Digest, TermsId, short
from lading_protocol.release import ReleasePointer, Yank

MOST_YANKS = 64


class Line(msgspec.Struct, frozen=True):
    """What is remembered, over restarts, of an agent that the operator named.

    `serving` is the release that is served and `terms` those that it is sold under; `wanted` is the one that the newest
    pointer names, whose sequence is `sequence`. `yanks` are releases that were taken back, with the publisher's words.
    """

    publisher: Address
    lineage: Digest
    serving: AgentId
    wanted: AgentId
    terms: TermsId
    sequence: int = 0
    yanks: Annotated[tuple[tuple[AgentId, str], ...], Meta(max_length=MOST_YANKS)] = ()

    def yanked(self, agent: AgentId) -> str | None:
        """Why it was taken back; None when it was not."""
        return next((reason for one, reason in self.yanks if one == agent), None)


class Registration(msgspec.Struct, frozen=True):
    """What the chain says of an agent; `at` is Unix seconds."""

    owner: Address
    at: int


def begin(publisher: Address, lineage: Digest, serving: AgentId, terms: TermsId) -> Line:
    return Line(publisher, lineage, serving, serving, terms)


def is_news(line: Line, pointer: ReleasePointer) -> bool:
    """Worth checking further: of this lineage, and newer than all before."""
    return pointer.lineage == line.lineage and pointer.sequence > line.sequence


def refusal(line: Line, pointer: ReleasePointer, wanted: Registration | None, present: Registration | None) -> str:
    """Why a pointer whose signature is good is not taken; "" when it is. Both agents are as the chain has them."""
    agent = AgentId(pointer.agent)
    if not is_news(line, pointer):
        return f"the pointer is not newer than the one that was taken (sequence {line.sequence})"
    if wanted is None:
        return f"agent {short(agent)} is not registered on the chain"
    if wanted.owner != line.publisher:
        return f"agent {short(agent)} is registered by another publisher"
    if line.yanked(agent) is not None:
        return f"agent {short(agent)} was withdrawn by its publisher"
    # Without a pointer taken before, an old one looks like any other: only then the chain's dates decide.
    if not line.sequence and present is not None and wanted.at < present.at:
        return f"agent {short(agent)} is older than what is served, and no pointer was seen before"
    return ""


def pointed(line: Line, pointer: ReleasePointer) -> Line:
    return replace(line, wanted=AgentId(pointer.agent), sequence=pointer.sequence)


def moved(line: Line, agent: AgentId, terms: TermsId) -> Line:
    """From now on this release is served."""
    return replace(line, serving=agent, terms=terms)


def taken_back(line: Line, yank: Yank, reason: str) -> Line:
    """Nobody moves to it any more."""
    agent = AgentId(yank.agent)
    others = [one for one in line.yanks if one[0] != agent]
    # What is served counts longest: without its yank it would be served again after a restart.
    others.sort(key=lambda one: one[0] == line.serving)
    wanted = line.serving if line.wanted == agent else line.wanted
    return replace(line, wanted=wanted, yanks=(*others[-MOST_YANKS + 1 :], (agent, reason)))
