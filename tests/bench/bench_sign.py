"""Signing a voucher and checking who signed it, against eth-account in the same process and the same rounds.

CPU time, not the clock's: the machine may be shared. A ratio is the median over the rounds' own ratios. Every voucher
differs, so that neither side can remember an answer.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from coincurve import PublicKey
from eth_account import Account
from eth_account.messages import encode_typed_data

from lading_protocol.eip712 import Domain
from lading_protocol.ids import Digest, Signature, to_hex
from lading_protocol.keys import PrivateKey
from lading_protocol.receipts import Receipt, Voucher
from lading_protocol.sheaves import bind, signer, spread

from .report import say

KEY = PrivateKey(b"\x11" * 32)
DOMAIN = Domain(31_337, PrivateKey(b"\x22" * 32).address)
HOST, TERMS = PrivateKey(b"\x33" * 32).address, b"\x44" * 32
PEER = "eth-account, with its coincurve backend"
_ACCOUNT = Account.from_key(KEY.secret)
_TYPED_DOMAIN = {
    "name": "Lading",
    "version": "1",
    "chainId": DOMAIN.chain_id,
    "verifyingContract": to_hex(DOMAIN.contract),
}
_TYPES = {
    "Voucher": [
        {"type": "address", "name": "host"},
        {"type": "bytes32", "name": "terms"},
        {"type": "uint32", "name": "epoch"},
        {"type": "uint96", "name": "cumulative"},
    ]
}


def our_sign(cumulative: int) -> Any:
    return Voucher(HOST, TERMS, 0, cumulative).sign(DOMAIN, KEY)


def our_check(signed: Any) -> None:
    signed.check(DOMAIN, KEY.address)


def _message(cumulative: int) -> Any:
    values = {"host": to_hex(HOST), "terms": TERMS, "epoch": 0, "cumulative": cumulative}
    return encode_typed_data(_TYPED_DOMAIN, _TYPES, values)


def their_sign(cumulative: int) -> tuple[int, bytes]:
    return cumulative, bytes(_ACCOUNT.sign_message(_message(cumulative)).signature)


def their_check(signed: tuple[int, bytes]) -> None:
    cumulative, signature = signed
    if Account.recover_message(_message(cumulative), signature=signature) != _ACCOUNT.address:
        raise SystemExit("eth-account does not know its own signature")


def bare_recovery(signed: tuple[bytes, bytes]) -> None:
    signature, digest = signed
    PublicKey.from_signature_and_message(signature, digest, hasher=None)


def timed(action: Callable[[Any], Any], inputs: Sequence[Any]) -> tuple[float, list[Any]]:
    """CPU microseconds a call, and what came of them."""
    begun = time.process_time()
    made = [action(one) for one in inputs]
    return (time.process_time() - begun) / len(inputs) * 1e6, made


def measure(rounds: int, count: int) -> dict[str, list[float]]:
    """By name, one figure a round. Raises SystemExit when the two sides' signatures differ."""
    found: dict[str, list[float]] = {name: [] for name in ("sign", "check", "their_sign", "their_check", "bare")}
    for number in range(rounds + 1):
        amounts = range(1 + number * count, 1 + (number + 1) * count)
        sign, ours = timed(our_sign, amounts)
        their, theirs = timed(their_sign, amounts)
        check, _ = timed(our_check, ours)
        their_checked, _ = timed(their_check, theirs)
        raw = [(_raw(one.signature), one.value.digest(DOMAIN)) for one in ours]
        bare, _ = timed(bare_recovery, raw)
        if [one.signature for one in ours] != [signature for _, signature in theirs]:
            raise SystemExit("Lading and eth-account sign the same voucher differently")
        if number:  # the first round warms up
            for name, value in zip(found, (sign, check, their, their_checked, bare), strict=True):
                found[name].append(value)
    return found


BOUND = 10


def measure_receipts(rounds: int, count: int) -> dict[str, list[float]]:
    """A receipt signed and checked alone, and one of BOUND that are bound together, as host and payer do it."""
    found: dict[str, list[float]] = {"sign": [], "check": [], "bind": [], "spread": []}
    for number in range(rounds + 1):
        receipts = [_receipt(number * count + each) for each in range(count)]
        sign, alone = timed(lambda one: one.sign(DOMAIN, KEY), receipts)
        check, _ = timed(our_check, alone)
        heaps = [[one.digest(DOMAIN) for one in receipts[at : at + BOUND]] for at in range(0, count, BOUND)]
        digests, _ = timed(lambda one: one.digest(DOMAIN), receipts)
        bound, signatures = timed(lambda heap: bind(heap, DOMAIN, KEY), heaps)
        told = [(heap, Signature(one[0][:65])) for heap, one in zip(heaps, signatures, strict=True)]
        spread_out, _ = timed(_taken, told)
        if number:  # the first round warms up
            each = (sign, check, digests + bound / BOUND, digests + spread_out / BOUND)
            for name, value in zip(found, each, strict=True):
                found[name].append(value)
    return found


def _receipt(n: int) -> Receipt:
    names = (n.to_bytes(32, "big"), 0, b"r" * 32, b"a" * 32, TERMS, KEY.address, HOST)
    return Receipt(*names, 0, 0, 5, 9, b"p" * 32, b"c" * 32, 1, 2, 23, 1, 1_800_000_000)


def _taken(told: tuple[list[Digest], Signature]) -> None:
    digests, signature = told
    signatures = spread(digests, signature)
    if signer(digests[0], signatures[0], DOMAIN) != KEY.address:
        raise SystemExit("a sheaf is not signed by who bound it")


def report_receipts(found: dict[str, list[float]], count: int) -> None:
    middle = {name: statistics.median(values) for name, values in found.items()}
    for name, ours, other, note in (
        ("sign_receipt_of_sheaf", "bind", "sign", "the digest, and a tenth of the tree and its signature"),
        ("check_receipt_of_sheaf", "spread", "check", "the digest, and a tenth of the tree and a recovery"),
    ):
        how = f"{BOUND} receipts a sheaf: {note}; CPU time; {count} different receipts a round"
        reference = ("the same receipt signed alone", middle[other])
        say(name, middle[ours], "us", reference=reference, n=len(found[ours]), note=how)


def _raw(signature: bytes) -> bytes:
    return signature[:64] + bytes([signature[64] - 27])


def report(found: dict[str, list[float]], count: int) -> None:
    middle = {name: statistics.median(values) for name, values in found.items()}
    n = len(found["sign"])
    how = f"CPU time; medians of {n} rounds of {count} different vouchers, the two sides in turns"
    say(
        "sign_voucher",
        middle["sign"],
        "us",
        reference=(f"{PEER}: encode_typed_data and sign_message", middle["their_sign"]),
        bar="<= 60",
        n=n,
        note=how,
    )
    say(
        "verify_voucher",
        middle["check"],
        "us",
        reference=(f"{PEER}: encode_typed_data and recover_message", middle["their_check"]),
        bar="<= 80",
        n=n,
        note=f"recover and compare; {how}",
    )
    floor = f"libsecp256k1's bare recovery of a key takes {middle['bare']:.1f} us of it"
    times = [
        ("sign_speedup", ("their_sign",), ("sign",), ""),
        ("verify_speedup", ("their_check",), ("check",), floor),
        ("round_trip_speedup", ("their_sign", "their_check"), ("sign", "check"), "signed once and verified once"),
    ]
    for name, theirs, ours, note in times:
        value = statistics.median(_ratios(found, theirs, ours))
        say(name, value, "times", bar=">= 7", n=n, note=f"as fast as {PEER}" + (f"; {note}" if note else ""))


def _ratios(found: dict[str, list[float]], theirs: tuple[str, ...], ours: tuple[str, ...]) -> list[float]:
    return [
        sum(found[name][at] for name in theirs) / sum(found[name][at] for name in ours)
        for at in range(len(found["sign"]))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: a check that it runs, not a result")
    rounds, count = (3, 50) if parser.parse_args().quick else (21, 200)
    report(measure(rounds, count), count)
    report_receipts(measure_receipts(rounds, count), count)


if __name__ == "__main__":
    main()
