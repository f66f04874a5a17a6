"""From chat messages to prompt ids, and from output ids to their bytes: the tokenizer and the chat markup of an agent.

Owns the `tokenizers` library. The markup is data (markers around each message), or a Jinja template in the
transformers style, which is run in a sandbox and under a deadline. Runs in the engine's process only.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from tokenizers import Tokenizer

from lading_node.core.stops import piece_bytes
from lading_node.core.tools import OPEN
from lading_node.engines.errors import EngineError, one_line
from lading_node.engines.template import compile_template
from lading_protocol.messages import Message
from lading_protocol.parts import LlmShape

MAX_VOCABULARY = 1 << 22
Marker = Annotated[str, Meta(min_length=1, max_length=64)]


class Markup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """bos, then marker, content and end of each message, then the assistant's marker; nothing in between."""

    bos: Marker
    end: Marker
    roles: dict[str, Marker]


class Spoken:
    """What a language model has of its words: LanguageModel's verbs about prompts, by its Chat."""

    _chat: "Chat"

    def least_tokens(self, messages: Sequence[Message]) -> int:
        return self._chat.least_tokens(messages)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        return self._chat.prompt(messages)

    def plain(self, text: str) -> list[int]:
        return self._chat.plain(text)

    def with_tools(self, turns: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[int] | None:
        return self._chat.with_tools(turns, tools)


class Chat:
    """How one agent turns messages into ids. `pieces[i]` are the bytes that output id i stands for."""

    def __init__(self, tokenizer: bytes, template: bytes, shape: LlmShape, *, is_markup: bool) -> None:
        self._tokenizer = load_tokenizer(tokenizer)
        self.pieces = byte_pieces(self._tokenizer, tokenizer)
        self._longest = max(map(len, self.pieces), default=1) or 1
        self._encode: _MarkupEncoder | _TemplateEncoder
        if is_markup:
            self._encode = _MarkupEncoder(self._tokenizer, _load_markup(template))
        else:
            self._encode = _TemplateEncoder(self._tokenizer, _text(template), shape)
        # Where the marks of a call are control tokens they have no text, and nobody could find the call in an answer.
        marks = self._tokenizer.encode(OPEN, add_special_tokens=False).ids
        self._shows_calls = b"".join(self.pieces[one] for one in marks) == OPEN.encode()

    def least_tokens(self, messages: Sequence[Message]) -> int:
        """A lower bound of the prompt's length that costs nothing: no token is longer than the longest one."""
        return sum(len(message.content.encode()) for message in messages) // self._longest

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The prompt ids, up to where the assistant speaks. Raises EngineError."""
        return self._encode(messages)

    def plain(self, text: str) -> list[int]:
        """The ids of a prompt without markup, with what the tokenizer itself puts around a text."""
        self._tokenizer.encode_special_tokens = False
        return list(self._tokenizer.encode(text).ids)

    def with_tools(self, turns: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[int] | None:
        """See LanguageModel.with_tools."""
        if isinstance(self._encode, _MarkupEncoder) or not self._shows_calls or not self._encode.template.takes_tools:
            return None
        return self._encode.ids(self._encode.template.render(turns, tools))


class _MarkupEncoder:
    """Markers become their control tokens; contents never do, so nobody can type their way out of a message."""

    def __init__(self, tokenizer: Tokenizer, markup: Markup) -> None:
        if "assistant" not in markup.roles:
            raise EngineError("invalid_package", "The chat markup has no marker for the assistant.")
        self._tokenizer = tokenizer
        self._bos = [_marker(tokenizer, markup.bos)]
        self._end = [_marker(tokenizer, markup.end)]
        self._roles = {role: [_marker(tokenizer, text)] for role, text in markup.roles.items()}

    def __call__(self, messages: Sequence[Message]) -> list[int]:
        ids = list(self._bos)
        self._tokenizer.encode_special_tokens = True
        for message in messages:
            if message.role not in self._roles:
                known = ", ".join(sorted(self._roles))
                raise EngineError(
                    "invalid_request", f"This agent knows no role {message.role!r}.", hint=f"Use {known}."
                )
            ids += self._roles[message.role]
            ids += self._tokenizer.encode(message.content, add_special_tokens=False).ids
            ids += self._end
        return ids + self._roles["assistant"]


class _TemplateEncoder:
    def __init__(self, tokenizer: Tokenizer, template: str, shape: LlmShape) -> None:
        self._tokenizer = tokenizer
        named = ["" if i is None else tokenizer.id_to_token(i) or "" for i in (shape.bos, shape.eos[0])]
        self.template = compile_template(template, *named)

    def __call__(self, messages: Sequence[Message]) -> list[int]:
        return self.ids(self.template(messages))

    def ids(self, text: str) -> list[int]:
        self._tokenizer.encode_special_tokens = False
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _marker(tokenizer: Tokenizer, text: str) -> int:
    found = tokenizer.token_to_id(text)
    if found is None:
        raise EngineError("invalid_package", f"The tokenizer has no token {text!r} that the chat markup names.")
    return int(found)


def load_tokenizer(data: bytes) -> Tokenizer:
    """Raises EngineError."""
    try:
        return Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises plain Exception
        raise EngineError("invalid_package", f"The tokenizer does not load: {one_line(error)}") from error


def _load_markup(data: bytes) -> Markup:
    try:
        return msgspec.json.decode(data, type=Markup)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise EngineError("invalid_package", f"The chat markup does not read: {error}") from error


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise EngineError("invalid_package", "The chat template is not UTF-8 text.") from error


def byte_pieces(tokenizer: Tokenizer, data: bytes) -> list[bytes]:
    """Bytes of every id. Special tokens have no text, as `decode` leaves them out."""
    kind = (json.loads(data).get("decoder") or {}).get("type")
    if kind != "ByteLevel":
        raise EngineError("invalid_package", f"The tokenizer decodes by {kind!r}; only byte-level BPE is supported.")
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    last = max(vocabulary.values(), default=-1)
    if last >= MAX_VOCABULARY:
        raise EngineError("invalid_package", f"The tokenizer has the id {last}; {MAX_VOCABULARY} is too many.")
    pieces = [b""] * (last + 1)
    for piece, i in vocabulary.items():
        pieces[i] = piece_bytes(piece)
    for i, added in tokenizer.get_added_tokens_decoder().items():
        pieces[i] = b"" if added.special else piece_bytes(added.content)
    return pieces
