"""What an audit costs: bytes on the wire, milliseconds a token, and a prefill against generation."""

from . import ROOT


def report(quick: bool) -> None:
    pass
