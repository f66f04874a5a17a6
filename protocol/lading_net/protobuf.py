"""The little of protobuf that libp2p's protocols need: numbers (unsigned LEB128) and length-delimited fields.

Knows no message; multistream uses the numbers too.
"""


def encode_number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_number(data: bytes, at: int, longest: int = 5) -> tuple[int, int] | None:
    """(value, index after it), or None when data ends before the number. Raises ValueError past `longest` bytes."""
    value = 0
    for size in range(longest):
        if at + size >= len(data):
            return None
        byte = data[at + size]
        value |= (byte & 0x7F) << (7 * size)
        if byte < 0x80:
            return value, at + size + 1
    raise ValueError(f"a number longer than {longest} bytes")


def encode_field(number: int, data: bytes) -> bytes:
    return encode_number(number << 3 | 2) + encode_number(len(data)) + data


def encode_count(number: int, value: int) -> bytes:
    """A field that is a number."""
    return encode_number(number << 3) + encode_number(value)


def decode_fields(data: bytes) -> dict[int, list[bytes]]:
    """The length-delimited fields of a protobuf message by number; other kinds are skipped. Raises ValueError."""
    return decode_message(data)[0]


def decode_message(data: bytes) -> tuple[dict[int, list[bytes]], dict[int, int]]:
    """The length-delimited fields of a protobuf message, and of its numbers the last of each. Raises ValueError."""
    fields: dict[int, list[bytes]] = {}
    counts: dict[int, int] = {}
    at = 0
    while at < len(data):
        key, at = _need(decode_number(data, at))
        kind = key & 7
        if kind == 0:
            counts[key >> 3], at = _need(decode_number(data, at, 10))
            continue
        size, at = _need(decode_number(data, at)) if kind == 2 else ({1: 8, 5: 4}.get(kind, len(data)), at)
        if at + size > len(data):
            raise ValueError("a field runs past the end")
        if kind == 2:
            fields.setdefault(key >> 3, []).append(data[at : at + size])
        at += size
    return fields, counts


def _need(found: tuple[int, int] | None) -> tuple[int, int]:
    if found is None:
        raise ValueError("a number is cut off")
    return found
