"""Whether an auditor's finding follows from the numbers that it shows."""

import msgspec
import pytest

from factories import key
from lading_coordinator.audits.asking import agrees
from lading_protocol.audit import Verdict
from lading_protocol.messages import Finding
from lading_protocol.sketches import chunk_means, errors
from unit.node.test_core import NET, case, receipt

CLAIMED = receipt()
SHOWN = msgspec.structs.replace(case(), receipt=CLAIMED.sign(NET.court_domain, key("host")).pack(), marks=b"x" * 64)
AT = CLAIMED.prompt_tokens + CLAIMED.first - 1
OWN = b"\x00\x3c" * (16 * (AT + CLAIMED.output_tokens))
OTHER = b"\x00\x40" * (16 * (AT + CLAIMED.output_tokens))
APART = errors(OWN, OTHER)
FAR = (max(chunk_means(APART[AT:])), max(APART[:AT]))


def finding(verdict: Verdict, chunk: float, prompt: float) -> Finding:
    return Finding(bytes(32), int(verdict), "code", "", chunk=chunk, prompt=prompt)


@pytest.mark.parametrize(
    ("verdict", "said", "own", "opened", "follows"),
    [
        (Verdict.HONEST, (0.0, 0.0), OWN, OWN, True),
        (Verdict.GUILTY, FAR, OWN, OTHER, True),
        (Verdict.HONEST, (0.0, 0.0), OWN, OTHER, False),
        (Verdict.GUILTY, FAR, OWN, OWN, False),
        (Verdict.HONEST, (0.0, 0.0), OWN[:-32], OWN, False),
        # an id that no vocabulary has, a prompt that no context holds: there is nothing to compare, and it is a fault
        (Verdict.GUILTY, (0.0, 0.0), b"", OTHER, True),
        (Verdict.GUILTY, FAR, b"", OTHER, False),
        # who has not looked has no states either
        (Verdict.HONEST, (0.0, 0.0), b"", OTHER, False),
        (Verdict.UNKNOWN, (0.0, 0.0), b"", OTHER, True),
    ],
)
def test_a_finding_follows_from_the_sketches(
    verdict: Verdict, said: tuple[float, float], own: bytes, opened: bytes, follows: bool
) -> None:
    assert agrees(finding(verdict, *said), SHOWN, own, opened) is follows
