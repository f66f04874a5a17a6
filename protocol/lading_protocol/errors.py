"""Every error of the protocol package, with the words that a person will read.

`code` is stable and meant for programs; `hint` says what to do next. Adapters translate foreign exceptions into these.
"""


def one_line(words: object, most: int = 200) -> str:
    """Foreign words as part of a sentence: short, and with nothing in them that a terminal would act on."""
    text = " ".join(str(words)[: 4 * most].split())
    return "".join(c if c.isprintable() else "\ufffd" for c in text)[:most]


class LadingError(Exception):
    """Something failed that the caller can act on."""

    code = "error"
    hint = ""

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class BadKey(LadingError):
    """The private key is not 32 bytes between 1 and the order of secp256k1."""

    code = "bad_key"
    hint = "Give 64 hexadecimal digits."


class BadSignature(LadingError):
    """A signature does not belong to the expected signer, or is malformed."""

    code = "bad_signature"
    hint = "The message was altered, or signed for another chain, contract or key."


class BadMessage(LadingError):
    """A peer sent bytes that are not a message of this protocol version."""

    code = "bad_message"
    hint = "Update the older of the two programs, or report the peer."


class BadSchema(LadingError):
    """A JSON Schema is malformed, too large, can never be met, or uses what the grammar has not."""

    code = "bad_schema"
    hint = "Change the named part of the schema; docs/protocol.md, section 6, lists what is supported."


class BadManifest(LadingError):
    """An agent manifest breaks a rule of the package format."""

    code = "bad_manifest"
    hint = "Correct the named field and publish again."


class BadReceipt(LadingError):
    """A receipt contradicts the tokens, price or job that it claims to describe."""

    code = "bad_receipt"
    hint = "Do not pay beyond the tokens you hold; keep the receipt as evidence."


class BadAmount(LadingError):
    """An amount is negative, not a whole number of wei, or too large for the contract."""

    code = "bad_amount"
    hint = "Amounts are whole, non-negative and below 2^96 wei."
