"""The tests of what is compiled, with the compiled modules in place of their sources: `python tests/compiled.py`.

Where nothing could be compiled there is nothing to test: that is said, and is a failure in CI only.
"""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS.parent / "tools"))

import side_by_side  # noqa: E402
from compiling.build import FOLDER, fresh  # noqa: E402

# What runs through the gateway, the dispatcher, the job machine and the direct link; see side_by_side.py.
GROUPS = (
    (
        "integration/coordinator/test_gateway_death.py",
        "integration/coordinator/test_gateway_killed.py",
        "integration/coordinator/test_litter.py",
        "integration/coordinator/test_openai_sdk.py",
        "integration/coordinator/test_workers.py",
    ),
    ("integration/net_direct", "simulation/test_node_sheaves.py"),
    ("unit/net",),
    (
        "unit/client/test_bursts.py",
        "unit/client/test_directory.py",
        "unit/client/test_dispatcher.py",
        "unit/client/test_funds.py",
        "unit/client/test_hedge.py",
        "unit/client/test_matching.py",
        "unit/client/test_moves.py",
        "unit/client/test_near.py",
        "unit/client/test_purse.py",
        "unit/client/test_scout.py",
        "unit/client/test_why.py",
        "unit/protocol/test_eip712.py",
        "unit/protocol/test_job.py",
        "unit/protocol/test_message_table.py",
        "unit/protocol/test_native.py",
        "unit/protocol/test_nesting.py",
    ),
    (
        "property/test_client_purse.py",
        "property/test_dialects.py",
        "property/test_failover.py",
        "property/test_joined.py",
        "property/test_matching.py",
        "property/test_net_direct.py",
        "property/test_preemption.py",
        "property/test_protocol.py",
        "property/test_spending_caps.py",
        "property/test_summaries.py",
    ),
    ("unit/coordinator",),
)
# They put a function in the place of a method, or a class on top of one, which machine code does not have.
NOT = (
    "property/test_spending_caps.py::test_requests_at_once_never_exceed_the_cap",
    "integration/net_direct/test_hostile.py::test_who_may_not_call_is_reset_before_anything_is_made_for_it",
    "integration/net_direct/test_relay.py::test_what_a_caller_said_before_it_was_gone_arrives",
    "integration/net_direct/test_relay.py::test_a_relay_cannot_pass_another_peer_off",
)
_LOOK = """
from lading_net.direct import link
from lading_coordinator import turns
from lading_protocol import _native
print(link.__file__, turns.__file__, _native.__file__)
"""


def main() -> int:
    if not fresh():
        print("There is no compiled folder of these sources: `make compiled` makes it.", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    path = os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
    found = subprocess.run([sys.executable, "-c", _LOOK], env=environment, capture_output=True, text=True, check=True)
    if any(not name.startswith(str(FOLDER)) or name.endswith(".py") for name in found.stdout.split()):
        print(f"Python does not take the compiled modules: {found.stdout}", file=sys.stderr)
        return 1
    left_out = [f"--deselect={Path('tests', name)}" for name in NOT]
    return side_by_side.run([[*left_out, *(str(TESTS / each) for each in group)] for group in GROUPS], environment)


if __name__ == "__main__":
    sys.exit(main())
