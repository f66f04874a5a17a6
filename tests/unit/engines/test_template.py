"""Chat templates are strangers' programs: they render, or end with one clear error, in bounded time."""

import gc
import signal
import time
import tracemalloc

import pytest

from lading_node.engines.errors import EngineError
from lading_node.engines.template import DEADLINE_S, _bounded, _Overtime, compile_template
from lading_protocol.messages import Message

CHAT = (Message("system", "Be kind."), Message("user", "Hi {{ 7*7 }} <b>"))


def test_a_common_template_renders_with_markers_and_untouched_contents() -> None:
    source = (
        "{{ bos_token }}{% for message in messages %}\n"
        "  {%- if message['role'] not in ['system', 'user', 'assistant'] %}{{ raise_exception('no') }}{% endif %}\n"
        "  {{- '<' + message.role + '>' + message.content | trim + eos_token }}\n"
        "{%- endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    render = compile_template(source, "<s>", "</s>")
    assert render(CHAT) == "<s><system>Be kind.</s><user>Hi {{ 7*7 }} <b></s><assistant>"


def test_a_template_may_refuse_and_its_words_reach_the_caller() -> None:
    render = compile_template("{{ raise_exception('Roles must alternate') }}")
    with pytest.raises(EngineError, match="Roles must alternate") as caught:
        render(CHAT)
    assert caught.value.failure == "invalid_request"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ 'a' * 10**9 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{{ nothing.at.all }}",
        "{% for i in range(99999) %}{{ messages[0].content * 1 }}{% endfor %}",
        "{% for i in range(99999) %}{{ 'this is a long line of text that is written far too often' }}{% endfor %}",
        "{% set a = 'aaaaaaaa' %}" + "{% set a = a ~ a %}" * 60,
        "{% set a = 'aaaaaaaa' %}" + "{% set a = a + a %}" * 60,
        "{% set n = namespace(a='aaaaaaaa') %}{% for i in range(60) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
        "{{ namespace().__init__.__globals__ }}",
        "{% set a = [1, 2] %}" + "{% set a = a + a %}" * 60,
        "{% set a = 'aaaaaaaa' %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 60,
        "{% set a = 'aaaaaaaa' %}" + "{% set a = a.replace('a', a) %}" * 20,
        "{% set a = 'aaaaaaaa' %}" + "{% set a = a | replace('a', a) %}" * 20,
        "{% set a = 'aaaaaaaa' %}" + "{% set a = a.join([a, a, a]) %}" * 40,
        "{% set a = 'aaaaaaaa' %}" + "{% set a = [a, a, a] | join(a) %}" * 40,
        "{{ (range(99999) | list) | join('a' ~ range(9999) | list) }}",
        "{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}",
        "{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a | tojson }}",
        "{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a | string }}",
        "{% set a = [1] %}" + "{% set a = {'k': a, 'l': a} %}" * 60 + "{{ 'x' ~ a }}",
        "{{ [1, [2]] | tojson(indent=10**9) }}",
        "{{ [1, [2]] | tojson(10**9) }}",
        "{{ [1, 2] | tojson(separators=('a long separator', ':')) }}",
        "{{ [1, 2] | tojson(separators=5) }}",
        "{{ messages | tojson(sort_keys=nothing.at.all) }}",
        "{{ 'a'.translate({97: 'a'}) }}",
        "{% macro f(a) %}{{ a }}{{ a }}{% endmacro %}{% set a = 'aaaaaaaa' %}" + "{% set a = f(a) %}" * 60,
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_hostile_templates_fail_and_blame_the_agent(source: str) -> None:
    tracemalloc.start()
    with pytest.raises(EngineError) as caught:
        compile_template(source)(CHAT)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.failure == "agent_error"
    assert most < 64 << 20


def test_endless_loops_meet_the_deadline() -> None:
    render = compile_template("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")
    began = time.process_time()
    with pytest.raises(EngineError, match="ran for more than"):
        render(CHAT)
    assert time.process_time() - began < DEADLINE_S * 4


@pytest.mark.parametrize("source", ["{% for %}", "{{ a", "x" * (1 << 18), "{{ 'a' | batch(10**9, 'x') }}"])
def test_what_does_not_compile_is_a_bad_package(source: str) -> None:
    with pytest.raises(EngineError) as caught:
        compile_template(source)
    assert caught.value.failure == "invalid_package"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_deadline_holds_also_when_it_strikes_where_python_drops_it() -> None:
    class Slow:
        def __del__(self) -> None:
            until = time.process_time() + 0.2
            while time.process_time() < until:
                pass

    def spin() -> None:
        with _bounded(0.05):
            Slow()
            until = time.process_time() + 2
            while time.process_time() < until:
                pass

    with pytest.raises(_Overtime):
        spin()
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert gc.isenabled()


def test_what_the_collector_would_take_is_not_the_templates() -> None:
    with _bounded(1):
        assert not gc.isenabled()
    assert gc.isenabled()
