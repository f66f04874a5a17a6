"""Which text each token releases, and what ends an answer."""

import pytest

from lading_node.core.stops import OutputText, piece_bytes

END = 9
PIECES = [b"a", b"b", b"\n", b"User", b":", b"\xf0\x9f", b"\xa6\x8a", b"ab\nU", b" c", b"<end>"]


def text(*stops: str, most: int = 50) -> OutputText:
    return OutputText(PIECES, (END,), stops, most)


def test_text_comes_with_its_token_when_nothing_can_be_pending() -> None:
    out = text()
    assert [out.push(i) for i in (0, 1, 8)] == ["a", "b", " c"]
    assert out.finish == ""
    assert out.count == 3


def test_half_a_character_waits_for_its_other_half() -> None:
    out = text()
    assert [out.push(i) for i in (0, 5, 6, 1)] == ["a", "", "🦊", "b"]


def test_half_a_character_at_the_end_is_shown_as_lost() -> None:
    out = text(most=2)
    assert [out.push(i) for i in (0, 5)] == ["a", "\N{REPLACEMENT CHARACTER}"]
    assert out.finish == "length"


def test_the_end_token_has_no_text_and_stops() -> None:
    out = text()
    assert [out.push(i) for i in (0, END)] == ["a", ""]
    assert out.finish == "stop"


def test_an_end_token_at_the_last_place_is_a_stop_not_a_length() -> None:
    out = text(most=1)
    out.push(END)
    assert out.finish == "stop"


def test_a_stop_string_over_several_tokens_is_held_back_and_never_shown() -> None:
    out = text("\nUser:")
    assert [out.push(i) for i in (0, 2, 3, 4)] == ["a", "", "", ""]
    assert out.finish == "stop"


def test_a_stop_string_that_does_not_come_true_is_released() -> None:
    out = text("\nUser:")
    assert [out.push(i) for i in (0, 2, 3, 1)] == ["a", "", "", "\nUserb"]
    assert out.finish == ""


def test_what_is_held_back_comes_out_when_the_answer_ends_otherwise() -> None:
    for last, most, finish in ((END, 50, "stop"), (2, 2, "length")):
        out = text("\nUser:", most=most)
        parts = [out.push(i) for i in ((0, 2, last) if last == END else (0, last))]
        assert "".join(parts) == "a\n"
        assert out.finish == finish


def test_text_before_a_stop_string_inside_one_token_is_shown() -> None:
    out = text("b\n")
    assert [out.push(7)] == ["a"]
    assert out.finish == "stop"


def test_the_earliest_of_several_stop_strings_wins() -> None:
    out = text("\nU", "b")
    assert out.push(7) == "a"
    assert out.finish == "stop"


def test_an_overlap_is_given_up_one_character_at_a_time() -> None:
    out = text("aab")
    assert [out.push(i) for i in (0, 0, 0, 0, 1)] == ["", "", "a", "a", ""]
    assert out.finish == "stop"


def test_replay_stops_where_the_answer_ended() -> None:
    out = text("b")
    assert out.replay([0, 1, 0]) == "a"
    assert (out.finish, out.count) == ("stop", 2)


def test_ids_beyond_the_tokenizer_have_no_text() -> None:
    assert text().push(500) == ""


@pytest.mark.parametrize(
    ("piece", "data"), [("a", b"a"), ("Ġa", b" a"), ("Ċ", b"\n"), ("ÃĤ", b"\xc3\x82"), ("<| x |>", b"<| x |>")]
)
def test_pieces_of_a_byte_level_vocabulary(piece: str, data: bytes) -> None:
    assert piece_bytes(piece) == data
