"""Any tokens, any cut: the text is that of the whole, nothing lost and nothing twice."""

from functools import cache

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from integration.engines.tiny_llama import tokenizer
from lading_node.core.stops import OutputText
from lading_node.engines.chat import byte_pieces

END = 1
IDS = st.lists(st.integers(2, 319), max_size=40)
STOPS = st.lists(st.text(alphabet="aefn ot狐", min_size=1, max_size=4), max_size=4)


@cache
def words() -> Tokenizer:
    return tokenizer()


@cache
def pieces() -> list[bytes]:
    return byte_pieces(words(), words().to_str().encode())


@given(IDS)
def test_deltas_join_to_what_the_tokenizer_decodes(ids: list[int]) -> None:
    out = OutputText(pieces(), (END,), (), len(ids) + 1)
    joined = "".join(out.push(token) for token in [*ids, END])
    assert joined == words().decode(ids, skip_special_tokens=True)


@given(IDS, STOPS, st.booleans(), st.data())
def test_a_resumed_stream_goes_on_with_the_same_deltas(
    ids: list[int], stops: list[str], ends: bool, data: st.DataObject
) -> None:
    tokens = [*ids, END] if ends else [*ids, 50]

    def begin() -> OutputText:
        return OutputText(pieces(), (END,), stops, len(tokens))

    whole, deltas = begin(), []
    for token in tokens:
        deltas.append(whole.push(token))
        if whole.finish:
            break
    cut = data.draw(st.integers(0, len(deltas)))
    again = begin()
    assert again.replay(tokens[:cut]) == "".join(deltas[:cut])
    rest = [again.push(token) for token in tokens[cut : len(deltas)]]
    assert rest == deltas[cut:]
    assert (again.finish, again.count) == (whole.finish, whole.count)


@given(IDS, STOPS.filter(bool))
def test_a_stop_string_is_never_shown_and_cuts_the_full_text_where_it_first_stands(
    ids: list[int], stops: list[str]
) -> None:
    out = OutputText(pieces(), (END,), stops, len(ids) + 1)
    shown = out.replay([*ids, END])
    full = words().decode(ids, skip_special_tokens=True)
    assert full.startswith(shown)
    assert not any(stop in shown for stop in stops)
    if len(shown) < len(full):
        assert any(full[len(shown) :].startswith(stop) for stop in stops)
    else:
        assert shown == full
