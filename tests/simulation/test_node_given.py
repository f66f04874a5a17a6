"""A payer that was told of tokens from elsewhere, at real nodes: they check them, and go on behind them."""

import msgspec
import pytest

from factories import chat_request
from lading.dispatch import Ask, Ended, Piece
from lading.errors import NoHost
from lading_protocol.pricing import attempt_amount
from simulation.node_world import AGENT, PRICE
from simulation.test_node_preemption import Pier, play

REQUEST = chat_request("Tell me of the long work.", max_tokens=150, temperature=0.9)


def test_the_rest_of_an_answer_is_given_and_charged_and_nothing_else() -> None:
    async def story(pier: Pier) -> None:
        whole = await pier.alone(REQUEST)
        ids = whole.ended.emitted
        for given in (1, 31, 32, len(ids) - 1, len(ids)):
            ask = Ask(AGENT, REQUEST, emitted=ids[:given])
            events = [event async for event in pier.gateway.dispatcher.run(pier.gateway.payer, ask)]
            ended = events[-1]
            assert isinstance(ended, Ended)
            assert (ended.emitted, ended.finish) == (ids, whole.ended.finish)
            rest = "".join(event.text for event in events if isinstance(event, Piece))
            assert whole.text.endswith(rest)
            assert ended.output_tokens == len(ids) - given
            assert ended.cost == attempt_amount(PRICE, 0, given, len(ids) - given)

    play(story)


@pytest.mark.parametrize("emitted", [(1, 2, 3), (0,) * 20])
def test_tokens_that_the_agent_never_gave_are_no_beginning(emitted: tuple[int, ...]) -> None:
    async def story(pier: Pier) -> None:
        run = pier.gateway.dispatcher.run(pier.gateway.payer, Ask(AGENT, REQUEST, emitted=emitted))
        with pytest.raises(NoHost) as caught:
            async for _ in run:
                pass
        assert "not what this agent gives" in caught.value.message

    play(story)


def test_what_a_host_held_back_at_the_seam_comes_from_the_next() -> None:
    """Its text may lag behind the tokens: the end may be a stop string's beginning, or half a character."""

    async def story(pier: Pier) -> None:
        plain = await pier.alone(REQUEST)
        words = plain.text.split(" ")
        stop = " ".join(words[20:23])
        for request in (REQUEST, msgspec.structs.replace(REQUEST, stop=(stop, "never said at all"))):
            whole = await pier.alone(request)
            pieces = [event for event in whole.heard if isinstance(event, Piece)]
            ids = whole.ended.emitted
            assert (len(ids) < len(plain.ended.emitted)) == bool(request.stop)
            for given in range(1, len(ids), 7):
                told = "".join(one.text for one in pieces if one.first + len(one.ids) <= given)
                given = sum(len(one.ids) for one in pieces if one.first + len(one.ids) <= given)
                run = pier.gateway.dispatcher.run(pier.gateway.payer, Ask(AGENT, request, emitted=ids[:given]))
                rest = "".join([event.text async for event in run if isinstance(event, Piece)])
                assert told + rest == whole.text, (given, request.stop)

    play(story)
