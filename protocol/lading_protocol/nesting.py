"""How deep JSON nests, told before it is parsed: a parser's own guard is a number that a library may have raised, and
past the real end of the stack a process dies without a word.
"""

import re

# A string that is never closed runs to the end, so that no text is looked through twice.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def depth(data: bytes) -> int:
    """How deep brackets nest outside of strings, in a time that is linear in the size."""
    now = deepest = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", data)):
        now += 1 if bracket[0] in b"[{" else -1
        deepest = max(deepest, now)
    return deepest


def deeper(data: bytes, most: int) -> bool:
    """Whether brackets nest deeper than `most`; where there are no more than that, nothing is looked through."""
    return data.count(b"[") + data.count(b"{") > most and depth(data) > most
