"""What every chat engine must do, whatever runs behind the port."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from integration.engines.asking import Answer, ask, collect, whole
from integration.engines.conftest import Bench
from lading_node.engines.port import Embed, Embedded, Failed, Finished, Generate, Run, Score, Scored, Started
from lading_protocol.audit import EXACT_MARGIN
from lading_protocol.messages import ChatRequest, EmbedRequest, Message, RichChat, Sampler
from lading_protocol.transcript import prompt_hash

Runs = Callable[[Coroutine[Any, Any, None]], None]


def test_an_answer_streams_and_its_usage_is_right(bench: Bench, run: Runs) -> None:
    async def main() -> None:
        async with bench.engine() as engine:
            before = engine.health()
            answer = await whole(engine, ask(30))
            again = await whole(engine, ask(30), "again")
            other = await whole(engine, ask(30, seed=1), "other")
            assert (again.ids, again.text) == (answer.ids, answer.text)
            assert other.ids != answer.ids
            assert answer.text
            assert isinstance(answer.end, Finished)
            assert answer.end.output_tokens == len(answer.ids)
            assert answer.end.finish == ("length" if len(answer.ids) == 30 else "stop")
            assert answer.started is not None
            assert len(answer.started.prompt_hash) == 32
            health = engine.health()
            assert health.alive
            assert health.running == 0
            assert health.output_tokens - before.output_tokens == len(answer.ids) * 2 + len(other.ids)
            assert health.prompt_tokens - before.prompt_tokens == answer.started.prompt_tokens * 3

    run(main())


@pytest.mark.parametrize("stop", [(), ("e", " fo")])
def test_resuming_at_every_index_gives_the_same_ids_and_text(bench: Bench, run: Runs, stop: tuple[str, ...]) -> None:
    async def main() -> None:
        async with bench.engine() as engine:
            request = ask(24, seed=3, stop=stop)
            answer = await whole(engine, request)
            shown = ""
            for cut in range(len(answer.ids) + 1):
                emitted = tuple(answer.ids[:cut])
                rest = await collect(engine, Generate(f"cut {cut}", request, emitted))
                assert [*emitted, *rest.ids] == answer.ids
                assert rest.end == Finished(f"cut {cut}", answer.end.finish, len(answer.ids))  # type: ignore[union-attr]
                assert answer.text.endswith(rest.text)
                assert rest.started is not None
                assert answer.started is not None
                assert rest.started.prompt_hash == answer.started.prompt_hash
                shown = answer.text[: len(answer.text) - len(rest.text)]
            assert shown == answer.text

    run(main())


SHAPED: dict[str, Any] = {
    "presence": 0.8,
    "frequency": 0.3,
    "repetition": 1.2,
    "bias": ((5, 2.0), (9, -100.0)),
    "min_p": 0.001,
    "top_k": 200,
}
LIST = {"type": "array", "items": {"type": ["string", "integer"], "maxLength": 20}, "minItems": 2, "maxItems": 4}


@pytest.mark.parametrize("grammar", [b"", json.dumps(LIST).encode()])
def test_penalties_and_grammar_are_resumed_and_audited(bench: Bench, run: Runs, grammar: bytes) -> None:
    async def main() -> None:
        async with bench.engine() as engine:
            request = ask(60, seed=4, grammar=grammar, **SHAPED)
            answer = await whole(engine, request)
            assert answer.ids != (await whole(engine, ask(60, seed=4), "plain")).ids
            if grammar and isinstance(answer.end, Finished) and answer.end.finish == "stop":
                assert 2 <= len(json.loads(answer.text)) <= 4
            for cut in range(1, len(answer.ids), 7):
                rest = await collect(engine, Generate(f"cut {cut}", request, tuple(answer.ids[:cut])))
                assert [*answer.ids[:cut], *rest.ids] == answer.ids
                assert answer.text.endswith(rest.text)
                found = await engine.score(Score(f"score {cut}", request, tuple(answer.ids), cut))
                assert isinstance(found, Scored)
                assert max(found.margins) < 0.01
            plain = await whole(engine, ask(60, seed=4, temperature=0.0), "other")
            found = await engine.score(Score("other", request, tuple(plain.ids)))
            assert isinstance(found, Scored)
            assert max(found.margins) > 0.1

    run(main())


def test_a_resume_shows_exactly_what_the_broken_stream_did_not(bench: Bench, run: Runs) -> None:
    """One token at a time, so that the text of each prefix is known."""

    async def main() -> None:
        async with bench.engine() as engine:
            request = ask(20, seed=5, stop=("zz",))
            shown = ""
            ids: tuple[int, ...] = ()
            while True:
                answer = Answer(len(ids))
                async with aclosing(engine.generate(Generate(f"from {len(ids)}", request, ids, ahead=1))) as events:  # type: ignore[type-var]
                    async for event in events:
                        answer.add(event)
                        if isinstance(event, Run):
                            break
                ids += tuple(answer.ids)
                shown += answer.text
                if answer.end is not None:
                    break
            straight = await whole(engine, request)
            assert (list(ids), shown) == (straight.ids, straight.text)

    run(main())


def test_concurrent_requests_equal_their_solo_runs(bench: Bench, run: Runs) -> None:
    async def main() -> None:
        async with bench.engine() as engine:
            requests = [ask(30, seed=i, temperature=t) for i, t in enumerate((1.0, 0.7, 0.0, 1.3))]
            solo = [await whole(engine, request, f"solo {i}") for i, request in enumerate(requests)]
            both = await asyncio.gather(*(whole(engine, request, f"both {i}") for i, request in enumerate(requests)))
            assert [(a.ids, a.text) for a in both] == [(a.ids, a.text) for a in solo]

    run(main())


def test_slots_progress_together(bench: Bench, run: Runs) -> None:
    """A long answer that began first does not keep a short one waiting for its end."""

    async def main() -> None:
        async with bench.engine(context=1000) as engine:
            order: list[str] = []

            async def one(id: str, tokens: int) -> None:
                async with aclosing(engine.generate(Generate(id, ask(tokens), ahead=4))) as events:  # type: ignore[type-var]
                    async for event in events:
                        order.append(id)
                        assert not isinstance(event, Failed)

            await asyncio.gather(one("long", 150), one("short", 5))
            last = {id: len(order) - order[::-1].index(id) for id in ("long", "short")}
            assert last["short"] < last["long"]

    run(main())


def test_more_requests_than_slots_are_refused_as_busy(bench: Bench, run: Runs) -> None:
    async def main() -> None:
        async with bench.engine(slots=2) as engine:
            held = [aiter(engine.generate(Generate(str(i), ask(30), ahead=1))) for i in range(2)]
            for iterator in held:
                assert isinstance(await anext(iterator), Started)
            third = await collect(engine, Generate("third", ask(30)))
            assert isinstance(third.end, Failed)
            assert third.end.code == "busy"
            for iterator in held:
                assert [event async for event in iterator]
            assert (await whole(engine, ask(5), "later")).ids

    run(main())


def test_cancel_ends_a_stream_at_once_and_frees_its_slot(bench: Bench, run: Runs) -> None:
    async def main() -> None:
        async with bench.engine(slots=1) as engine:
            answer = Answer()
            order = Generate("a", ask(180, temperature=1.2), ahead=4)
            async with aclosing(engine.generate(order)) as events:  # type: ignore[type-var]
                async for event in events:
                    answer.add(event)
                    if isinstance(event, Run):
                        engine.cancel("a")
            assert isinstance(answer.end, Finished)
            assert answer.end.finish == "cancelled"
            assert answer.end.output_tokens == len(answer.ids) <= 12
            engine.cancel("a")
            engine.cancel("never was")
            assert (await whole(engine, ask(5), "next")).ids

    run(main())


def test_leaving_the_iterator_cancels(bench: Bench, run: Runs) -> None:
    async def main() -> None:
        async with bench.engine(slots=1) as engine:
            async with aclosing(engine.generate(Generate("a", ask(180)))) as events:  # type: ignore[type-var]
                async for event in events:
                    if isinstance(event, Run):
                        break
            assert (await whole(engine, ask(5), "next")).ids

    run(main())


def test_an_engine_runs_no_further_ahead_than_it_may(bench: Bench, run: Runs) -> None:
    async def main() -> None:
        async with bench.engine() as engine:
            async with aclosing(engine.generate(Generate("a", ask(150), ahead=8))) as events:  # type: ignore[type-var]
                iterator = aiter(events)
                assert isinstance(await anext(iterator), Started)
                await whole(engine, ask(100, seed=2), "meanwhile")
                made = engine.health().output_tokens
                await asyncio.sleep(0.05)
                assert engine.health().output_tokens == made
                meanwhile = engine.health().output_tokens
                got = [event async for event in iterator if isinstance(event, Run)]
                before = meanwhile - (engine.health().output_tokens - sum(len(event.ids) for event in got))
                assert before >= 0
            straight = await whole(engine, ask(150), "straight")
            assert [i for event in got for i in event.ids] == straight.ids

    run(main())


def test_what_does_not_fit_is_refused_with_both_numbers(bench: Bench, run: Runs) -> None:
    async def main() -> None:
        async with bench.engine() as engine:
            long = ChatRequest((Message("user", "fox " * 100_000),), 10, Sampler(bytes(32)))
            for request in (long, ask(250)):
                answer = await collect(engine, Generate("long", request))
                assert isinstance(answer.end, Failed)
                assert answer.end.code == "context_exceeded"
                assert str(request.max_tokens) in answer.end.message
                assert "256" in answer.end.message
                assert answer.started is None
            fits = await whole(engine, ask(5))
            assert fits.started is not None
            room = 256 - fits.started.prompt_tokens
            exact = await collect(engine, Generate("exact", ask(room)))
            assert isinstance(exact.end, Finished)
            over = await collect(engine, Generate("over", ask(room + 1)))
            assert isinstance(over.end, Failed)
            assert f"{fits.started.prompt_tokens} tokens" in over.end.message

    run(main())


@pytest.mark.parametrize(
    ("emitted", "words"),
    [((10**6,), "vocabulary"), (tuple([2] * 6), "at most 5"), ((-1,), "")],
)
def test_impossible_emitted_tokens_are_refused(bench: Bench, run: Runs, emitted: tuple[int, ...], words: str) -> None:
    async def main() -> None:
        async with bench.engine() as engine:
            answer = await collect(engine, Generate("bad", ask(5), emitted))
            assert isinstance(answer.end, Failed)
            assert answer.end.code == "invalid_request"
            assert words in answer.end.message

    run(main())


def test_an_unknown_role_is_refused(bench: Bench, run: Runs) -> None:
    async def main() -> None:
        async with bench.engine() as engine:
            request = ChatRequest((Message("wizard", "Hi"),), 5, Sampler(bytes(32)))
            answer = await collect(engine, Generate("role", request))
            assert isinstance(answer.end, Failed)
            assert answer.end.code == "invalid_request"
            assert (await whole(engine, ask(5))).ids

    run(main())


def test_the_same_id_twice_is_refused(bench: Bench, run: Runs) -> None:
    async def main() -> None:
        async with bench.engine() as engine:
            first, second = await asyncio.gather(*(collect(engine, Generate("same", ask(10))) for _ in range(2)))
            assert isinstance(first.end, Finished)
            assert isinstance(second.end, Failed)
            assert second.end.code == "invalid_request"

    run(main())


def test_an_honest_answer_scores_nothing_and_a_changed_one_much(bench: Bench, run: Runs) -> None:
    async def main() -> None:
        async with bench.engine() as engine:
            for request in (ask(40, seed=9), ask(40, temperature=0.0), ask(40, temperature=0.7, top_p=0.9)):
                answer = await whole(engine, request)
                ids = tuple(answer.ids)
                scored = await engine.score(Score("score", request, ids))
                assert isinstance(scored, Scored), scored
                assert answer.started is not None
                assert (scored.prompt_tokens, scored.prompt_hash) == (
                    answer.started.prompt_tokens,
                    answer.started.prompt_hash,
                )
                assert len(scored.margins) == len(ids)
                assert max(scored.margins) < 1e-3
                assert isinstance(answer.end, Finished)
                assert (scored.finish, scored.ended) == (answer.end.finish, len(ids))
                tail = await engine.score(Score("tail", request, ids, len(ids) - 3))
                assert isinstance(tail, Scored)
                assert max(tail.margins) < 1e-3
                assert len(tail.margins) == 3
                changed = (*ids[:5], (ids[5] + 1) % 20 + 2, *ids[6:])
                wrong = await engine.score(Score("wrong", request, changed))
                assert isinstance(wrong, Scored)
                assert max(wrong.margins[:5]) < 1e-3
                assert max(wrong.margins[5:]) > 0.1
            nothing = await engine.score(Score("nothing", ask(40), ()))
            assert isinstance(nothing, Scored)
            assert (nothing.margins, nothing.ended) == ((), 0)
            early = await engine.score(Score("early", ask(40), ids[:10]))
            assert isinstance(early, Scored)
            assert (early.finish, early.ended) == ("", 0)

    run(main())


def test_what_an_exact_class_cuts_off_is_cut_off(bench: Bench, run: Runs) -> None:
    """An honest answer is as good there; one of a host that takes a little more than top-p allows is not."""

    async def main() -> None:
        async with bench.engine() as engine:
            for seed in range(40):
                request, loose = (ask(60, seed=seed, top_p=share) for share in (0.9, 0.918))
                honest, other = [tuple((await whole(engine, one)).ids) for one in (request, loose)]
                own = await engine.score(Score("own", request, honest, exact=True))
                assert isinstance(own, Scored)
                assert max(own.margins) <= EXACT_MARGIN
                if honest == other:
                    continue
                soft = await engine.score(Score("soft", request, other))
                hard = await engine.score(Score("hard", request, other, exact=True))
                assert isinstance(soft, Scored)
                assert isinstance(hard, Scored)
                assert max(hard.margins) > EXACT_MARGIN
                assert all(a <= b for a, b in zip(soft.margins, hard.margins, strict=True))
                if max(soft.margins) <= EXACT_MARGIN:
                    return
            pytest.fail("no token lay within the slack of the tolerant classes")

    run(main())


def test_the_wrong_operation_and_the_wrong_index_are_refused(bench: Bench, run: Runs) -> None:
    async def main() -> None:
        async with bench.engine() as engine:
            scored = await engine.score(Score("s", ask(5), (2,), 2))
            assert isinstance(scored, Failed)
            assert scored.code == "invalid_request"
            embedded = await engine.embed(Embed("e", EmbedRequest(("a", "b"))))
            if bench.kind in ("llm-onnx", "torch"):
                assert isinstance(embedded, Failed)
                assert embedded.code == "invalid_request"
            else:
                assert isinstance(embedded, Embedded)
                assert len(set(embedded.vectors)) == 2

    run(main())


def test_stopping_ends_running_requests_with_a_reason(bench: Bench, run: Runs) -> None:
    async def main() -> None:
        async with bench.engine() as engine:
            async with aclosing(engine.generate(Generate("a", ask(150), ahead=2))) as events:  # type: ignore[type-var]
                iterator = aiter(events)
                assert isinstance(await anext(iterator), Started)
                await engine.stop()
                *_, last = [event async for event in iterator]
            assert isinstance(last, Failed)
            assert last.code == "engine_died"
            assert not engine.health().alive
            late = await collect(engine, Generate("late", ask(5)))
            assert isinstance(late.end, Failed)
            await engine.stop()

    run(main())


def test_how_likely_tokens_were_and_a_prompt_without_markup(bench: Bench, run: Runs) -> None:
    """The tokens are the same as without."""

    async def main() -> None:
        async with bench.engine() as engine:
            plain = ask(30, seed=4)
            answer = await whole(engine, plain)
            rich = RichChat(plain.messages, plain.max_tokens, plain.sampler, logprobs=3)
            told = await whole(engine, rich, "told")
            assert (told.ids, answer.chances) == (answer.ids, [])
            assert len(told.chances) == len(told.ids)
            assert all(one.logprob <= one.top[0][0] <= 0.0 and len(one.top) == 2 for one in told.chances)
            scored = await engine.score(Score("score", rich, tuple(told.ids)))
            assert isinstance(scored, Scored)
            assert max(scored.margins) < 1e-3
            bare = RichChat((Message("user", ""),), 9, plain.sampler, prompt="The fox")
            by_text = await whole(engine, bare, "text")
            assert by_text.started is not None
            assert by_text.started.prompt_tokens < 8
            by_ids = await whole(engine, msgspec.structs.replace(bare, prompt=(7, 8, 9)), "ids")
            assert by_ids.started is not None
            assert (by_ids.started.prompt_tokens, by_ids.started.prompt_hash) == (3, prompt_hash([7, 8, 9]))
            offered = RichChat(plain.messages, 9, plain.sampler, tools=b'[{"function":{"name":"f"}}]')
            refused = await collect(engine, Generate("tools", offered))
            assert isinstance(refused.end, Failed)
            assert (refused.end.code, refused.started) == ("invalid_request", None)
            assert "knows no tools" in refused.end.message

    run(main())
