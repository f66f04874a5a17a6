"""Which of a package's runtimes a machine takes."""

import msgspec
import pytest

from lading_node.engines.factory import Means, lacking
from lading_node.errors import NoPackage
from lading_node.packages import choose_runtime
from lading_protocol.manifest import Manifest
from lading_protocol.parts import Runtime
from unit.coordinator.world import manifest

ON_CARD = Runtime("memory", "model/a", "bf16", "torch-bf16-cuda")
ON_PROCESSOR = Runtime("memory", "model/a", "f32", "torch-f32-cpu")


def chosen(card: bool | None, *runtimes: Runtime) -> Runtime:
    package: Manifest = msgspec.structs.replace(manifest(), runtimes=runtimes)
    return choose_runtime(package, lambda runtime: lacking(runtime, Means(card=card)))


@pytest.mark.parametrize(("card", "taken"), [(True, ON_CARD), (False, ON_PROCESSOR), (None, ON_CARD)])
def test_a_runtime_for_a_card_is_passed_over_where_there_is_none(card: bool | None, taken: Runtime) -> None:
    assert chosen(card, ON_CARD, ON_PROCESSOR) is taken


def test_a_package_for_cards_alone_says_what_is_missing() -> None:
    with pytest.raises(NoPackage, match="CUDA card"):
        chosen(False, ON_CARD)
