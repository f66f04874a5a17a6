"""The door to torch and transformers: imported here and nowhere else, and kept quiet while they are."""

import os
import sys

# Before the import: nothing is looked up or reported anywhere, sums on a GPU have one order, and a folder's name is not
# made of the user's, which the system's name service would be asked for.
os.environ.update(
    TORCHINDUCTOR_CACHE_DIR=os.path.join(os.environ.get("TMPDIR", "/tmp"), "inductor"),
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    TRANSFORMERS_VERBOSITY="error",
    CUBLAS_WORKSPACE_CONFIG=":4096:8",
)
# An HTTP library that transformers drags in looks for trio, which runs programs when it is imported.
sys.modules.setdefault("trio", None)  # type: ignore[arg-type]
import torch  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402
from transformers.cache_utils import Cache, DynamicLayer  # noqa: E402
from transformers.initialization import no_init_weights  # noqa: E402

if sys.modules.get("trio", torch) is None:
    del sys.modules["trio"]

__all__ = [
    "AutoConfig",
    "AutoModelForCausalLM",
    "Cache",
    "DynamicLayer",
    "no_init_weights",
    "torch",
]
