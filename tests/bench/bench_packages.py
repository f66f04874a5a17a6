"""Packages and what runs them: cold starts and warm calls of the engines, walls, machines, the road to a host.

Each part is a module packages_NAME.py beside this file that measures one thing; here they are put in a row.
"""

import argparse
import tempfile
from pathlib import Path

from . import packages_container, packages_freight, packages_isolation, packages_llm, packages_machines, packages_wasm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    quick = parser.parse_args().quick
    packages_isolation.rows(quick)
    packages_wasm.rows(quick)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "container").mkdir()
        packages_container.rows(folder / "container", quick)
        (folder / "llm").mkdir()
        packages_llm.rows(folder / "llm", 3 if quick else 7)
        (folder / "freight").mkdir()
        packages_freight.rows(folder / "freight", 3 if quick else 7, quick=quick)
    packages_machines.rows(quick)


if __name__ == "__main__":
    main()
