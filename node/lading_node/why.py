"""Asks every coordinator that we are linked to why this node gets work from it, or does not. Decides nothing."""

import asyncio
from typing import Any

import msgspec

from lading_net.messages import MessageStream
from lading_net.ports import Link
from lading_node.node import Node
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, AgentId, to_hex
from lading_protocol.losses import WHY, Account, AskWhy, Why

ASK_SECONDS = 3.0  # less than the status page gives a request
_why = msgspec.msgpack.Decoder(Why)
Tree = dict[str, Any]


async def ask_all(node: Node) -> list[Tree]:
    """What each says, or in words why it said nothing."""
    linked = [one.address for one in node.presence.coordinators if one.linked and one.address is not None]
    return list(await asyncio.gather(*(_ask(node, address) for address in linked)))


async def _ask(node: Node, coordinator: Address) -> Tree:
    tree: Tree = {"coordinator": to_hex(coordinator), "agents": [], "trouble": ""}
    try:
        async with asyncio.timeout(ASK_SECONDS):
            link = await node.presence.link_to(coordinator)
            tree["agents"] = [_tree(node, one) for one in (await _answer(link)).agents]
    except (LadingError, TimeoutError) as error:
        tree["trouble"] = str(error) or f"it did not answer within {ASK_SECONDS:g} s"
    return tree


async def _answer(link: Link) -> Why:
    messages: MessageStream[Why] = MessageStream(await link.open(WHY), _why)
    try:
        messages.send(AskWhy())
        return await messages.recv() or Why(())
    finally:
        messages.stream.reset()


def _tree(node: Node, one: Account) -> Tree:
    mine = next((agent for agent in node.agents if agent.serving.agent == AgentId(one.agent)), None)
    return {
        "agent": to_hex(one.agent),
        "name": mine.package.manifest.name if mine is not None and mine.package is not None else None,
        "jobs": one.jobs,
        "won": one.won,
        "seconds": one.seconds,
        "my_price_in": str(mine.serving.price.input) if mine is not None else None,
        "my_price_out": str(mine.serving.price.output) if mine is not None else None,
        "price_in": one.price_in or None,
        "price_out": one.price_out or None,
        "reasons": [{"code": r.code, "count": r.count, "words": r.words} for r in one.reasons],
    }
