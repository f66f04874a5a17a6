"""Split tables as people type them, and consents as people pass them on."""

from collections.abc import Iterable, Sequence

from lading.errors import BadSettings
from lading_contracts.deployment import Deployment
from lading_contracts.registry import Consents, Party, Role, terms_id
from lading_protocol.eip712 import Signed, unpack
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, Signature, address, short, to_hex
from lading_protocol.receipts import TermsConsent, compact

_WORDS = 2 * 32


def typed_party(text: str) -> Party:
    """ROLE=ADDRESS:BPS. Raises BadSettings."""
    try:
        role, _, rest = text.partition("=")
        payee, _, bps = rest.partition(":")
        return Party(address(payee), Role[role.upper()], int(bps))
    except (KeyError, ValueError) as error:
        raise BadSettings(
            f"--party {text!r} is wrong: {error}.",
            hint="Write it as maker=0x…:1500, with role maker, oem, weaver or curator.",
        ) from error


def typed_consents(record: Deployment, agent: bytes, table: Sequence[Party], given: Iterable[str]) -> Consents:
    """What `lading agent consent` printed, each for exactly this table. Raises BadSettings.

    A party that is a contract is named before its consent, as ADDRESS=0x…: the signature is whatever it accepts.
    """
    wanted = terms_id(agent, table)
    payees = {party.payee for party in table}
    signatures, deadlines = {}, set()
    for text in given:
        who, signed = _consent(record, text)
        if signed.value.terms != wanted or who not in payees:
            raise BadSettings(
                f"A consent, signed by {to_hex(who)}, is for another table or by nobody in this one.",
                hint=f"This table is {short(wanted)}: each party signs it with lading agent consent.",
            )
        # A key's in 64 bytes, which cost less; a contract's as it is.
        signatures[who] = bytes(signed.signature) if "=" in text else compact(signed.signature)
        deadlines.add(signed.value.deadline)
    if len(deadlines) > 1:
        raise BadSettings("The consents have different deadlines.", hint="Let all parties sign for the same --until.")
    return Consents(next(iter(deadlines), 0), signatures)


def _consent(record: Deployment, text: str) -> tuple[Address, Signed[TermsConsent]]:
    wallet, _, packed = text.rpartition("=")
    try:
        data = bytes.fromhex(packed.removeprefix("0x"))
        if wallet:
            value = TermsConsent.from_words(data[:_WORDS])
            return address(wallet), Signed(value, Signature(data[_WORDS:]))
        signed = unpack(TermsConsent, data)
        return signed.signer(record.registry_domain), signed
    except (ValueError, LadingError) as error:
        raise BadSettings(f"A consent does not read: {error}", hint="Give what lading agent consent printed.") from None
