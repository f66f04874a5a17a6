"""Checks drand signatures on BLS12-381. Owns py_ecc, which is plain Python and slow (half a second).

Run as a program it answers by its exit code, 0 for a signature that holds and 1 for one that does not.
Schemes as drand names them: https://docs.drand.love/docs/cryptography and RFC 9380 for hashing to the curve.
"""

import hashlib
import sys
from typing import Any

UNCHAINED_G1 = "bls-unchained-g1-rfc9380"
UNCHAINED = "pedersen-bls-unchained"
CHAINED = "pedersen-bls-chained"
_G1_TAG = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
_G2_TAG = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_NUL_"
# py_ecc wants the constructor and declares its result.
_HASH: Any = hashlib.sha256


def holds(scheme: str, key: bytes, number: int, signature: bytes, previous: bytes = b"") -> bool:
    """Whether `signature` is the group's of round `number`. Sizes are checked before anything is computed; a point that
    is not on the curve, not in the subgroup, or at infinity makes it False."""
    message = _message(scheme, number, previous)
    small = scheme == UNCHAINED_G1
    if message is None or len(signature) != (48 if small else 96) or len(key) != (96 if small else 48):
        return False
    try:
        return _on_g1(key, message, signature) if small else _on_g2(key, message, signature)
    except (ValueError, AssertionError):  # py_ecc says both of points that are none
        return False


def _message(scheme: str, number: int, previous: bytes) -> bytes | None:
    if not 0 < number < 2**63:
        return None
    name = number.to_bytes(8, "big")
    if scheme == CHAINED:
        return hashlib.sha256(previous + name).digest() if previous else None
    return hashlib.sha256(name).digest() if scheme in (UNCHAINED, UNCHAINED_G1) else None


def _on_g1(key: bytes, message: bytes, signature: bytes) -> bool:
    """Signature on G1, key on G2: e(signature, G2) = e(H(message), key)."""
    from py_ecc.bls.hash_to_curve import hash_to_G1
    from py_ecc.bls.point_compression import decompress_G1, decompress_G2
    from py_ecc.bls.typing import G1Compressed, G2Compressed
    from py_ecc.optimized_bls12_381.optimized_curve import G2

    point = decompress_G1(G1Compressed(int.from_bytes(signature, "big")))
    public = decompress_G2(G2Compressed((int.from_bytes(key[:48], "big"), int.from_bytes(key[48:], "big"))))
    return _sound(point, public) and _agree((G2, point), (public, hash_to_G1(message, _G1_TAG, _HASH)))


def _on_g2(key: bytes, message: bytes, signature: bytes) -> bool:
    """Signature on G2, key on G1: e(G1, signature) = e(key, H(message))."""
    from py_ecc.bls.hash_to_curve import hash_to_G2
    from py_ecc.bls.point_compression import decompress_G1, decompress_G2
    from py_ecc.bls.typing import G1Compressed, G2Compressed
    from py_ecc.optimized_bls12_381.optimized_curve import G1

    halves = int.from_bytes(signature[:48], "big"), int.from_bytes(signature[48:], "big")
    point = decompress_G2(G2Compressed(halves))
    public = decompress_G1(G1Compressed(int.from_bytes(key, "big")))
    return _sound(point, public) and _agree((point, G1), (hash_to_G2(message, _G2_TAG, _HASH), public))


def _sound(*points: Any) -> bool:
    """Whether points that came from outside are in the subgroup of prime order, and not its zero."""
    from py_ecc.bls.g2_primitives import subgroup_check
    from py_ecc.optimized_bls12_381.optimized_curve import is_inf

    return not any(is_inf(point) or not subgroup_check(point) for point in points)


def _agree(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    """Whether two pairs (a point of G2, a point of G1) have the same pairing: e(one) / e(other) = 1, with one power."""
    from py_ecc.fields import optimized_bls12_381_FQ12
    from py_ecc.optimized_bls12_381.optimized_curve import neg
    from py_ecc.optimized_bls12_381.optimized_pairing import final_exponentiate, pairing

    product = pairing(*one, final_exponentiate=False) * pairing(other[0], neg(other[1]), final_exponentiate=False)
    return bool(final_exponentiate(product) == optimized_bls12_381_FQ12.one())


def main(words: list[str]) -> int:
    scheme, key, number, signature, previous = words
    good = holds(scheme, bytes.fromhex(key), int(number), bytes.fromhex(signature), bytes.fromhex(previous))
    return 0 if good else 1


if __name__ == "__main__":
    # An interpreter that dies of an error also says 1: here that would be taken for an answer.
    try:
        code = main(sys.argv[1:])
    except Exception:
        code = 2
    sys.exit(code)
