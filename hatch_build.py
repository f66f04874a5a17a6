"""LADING_COMPILE=1 makes a wheel for this Python and machine, with the machine code that tools/compiling makes.

Otherwise, and where nothing can be compiled, the wheel is plain Python and the same for all.
"""

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# mypyc, and the libraries whose types the compiled modules use.
NEEDED = ("mypy", "setuptools", "coincurve", "cryptography", "httptools", "msgspec", "prometheus-client", "tiny-keccak")


class CompileHook(BuildHookInterface[Any]):
    @property
    def _wanted(self) -> bool:
        return self.target_name == "wheel" and os.environ.get("LADING_COMPILE") == "1"

    def dependencies(self) -> list[str]:
        if not self._wanted:
            return []
        pins = (Path(self.root) / "constraints.txt").read_text().split()
        return [pin for pin in pins if pin.partition("==")[0] in NEEDED]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not self._wanted or version != "standard":
            return
        sys.path.insert(0, str(Path(self.root) / "tools"))
        from compiling.build import ROOT, build, lacking

        if why := lacking():
            self.app.display_warning(f"LADING_COMPILE=1, but {why}: the wheel is plain Python.")
            return
        folder = ROOT / "build" / "wheel"
        made = build(folder, guarded=False)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(folder / path): str(path) for path in made})
