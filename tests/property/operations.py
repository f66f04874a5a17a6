"""What the areas' random operations share: skewed choices, and how an operation becomes a call on both chains."""

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from lading_contracts import abi
from property.twin_chains import Call, Outcome, Stage

Step = tuple[Any, ...]
Strategy = st.SearchStrategy[Any]


def mostly(first: Any, *others: Any) -> Strategy:
    """The first three times out of four: operations must meet each other to be worth anything."""
    return st.sampled_from((first,) * 3 * len(others) + others)


def op(name: str, *parts: Strategy) -> Strategy:
    return st.tuples(st.just(name), *parts)


def wait(*seconds: int) -> Strategy:
    return op("wait", st.sampled_from(seconds))


ENOUGH = settings(
    max_examples=int(os.environ.get("CHAIN_EXAMPLES", "5")),
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""A bounded run; CHAIN_EXAMPLES asks for a longer one."""


class Area:
    """Operations of one area. A method `_name` turns the operation `name` with its parts into a call, or into several.
    It may look at the fake chain for what a person would know: a nonce, a round."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    @property
    def now(self) -> int:
        return self.stage.clock.now

    def view(self, contract: str, verb: str, *arguments: Any) -> Any:
        """What the fake chain answers now."""
        to = self.stage.address(contract)
        item = abi.load(self.stage.names[to])
        return item.result(verb, self.stage.run(self.stage.fake.call(to, item.call(verb, *arguments))))


def play(stage: Stage, areas: list[Area], script: list[Step]) -> list[Outcome]:
    """Runs a script from the beginning."""
    stage.reset()
    return [outcome for step in script for outcome in perform(stage, areas, step)]


def perform(stage: Stage, areas: list[Area], step: Step) -> list[Outcome]:
    """One step: time passes, blocks come, or an area's operation is done."""
    name, *parts = step
    if name == "wait":
        stage.wait(*parts)
        return []
    if name == "mine":
        stage.mine(*parts)
        return []
    verb: Callable[..., Call | list[Call]] = next(
        getattr(area, f"_{name}") for area in areas if hasattr(area, f"_{name}")
    )
    calls = verb(*parts)
    return [stage.do(call) for call in ([calls] if isinstance(calls, Call) else calls)]


def compare_views(stage: Stage, asked: list[tuple[Any, ...]]) -> None:
    """Each (contract, view, *arguments): the same bytes from all chains, or the same refusal."""
    for contract, verb, *arguments in asked:
        stage.do(Call(contract, verb, "stranger", tuple(arguments), view=True))
