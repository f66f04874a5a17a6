"""The two ONNX files of the score, one multiplication each, written by hand: a node has no `onnx` package.

Field numbers are those of onnx.proto3; the format is protobuf's.
"""

FLOAT, UINT8, INT8, INT32 = 1, 2, 3, 6


def multiplication(size: int, weights: bytes, kind: str) -> bytes:
    """out = a × weights, both `size` × `size`; `kind` is "f32" or "int8" (unsigned by signed, summed in 32 bits)."""
    operator, left, right, result = {
        "f32": ("MatMul", FLOAT, FLOAT, FLOAT),
        "int8": ("MatMulInteger", UINT8, INT8, INT32),
    }[kind]
    node = _text(1, "a") + _text(1, "w") + _text(2, "out") + _text(4, operator)
    constant = _number(1, size) + _number(1, size) + _number(2, right) + _text(8, "w") + _bytes(9, weights)
    graph = _bytes(1, node) + _text(2, "score") + _bytes(5, constant)
    graph += _bytes(11, _value("a", left, size)) + _bytes(12, _value("out", result, size))
    return _number(1, 9) + _bytes(7, graph) + _bytes(8, _number(2, 17))


def _value(name: str, element: int, size: int) -> bytes:
    shape = _bytes(1, _number(1, size)) * 2
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, element) + _bytes(2, shape)))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())
