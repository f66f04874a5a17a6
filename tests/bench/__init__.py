"""The benchmarks: one process each, JSON lines out (DESIGN.md section 7); `python -m tests.bench` runs them all.

Each measures its reference in the same run. Their builders and toy hosts are the tests' own, hence the path.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for _root in ("tests", "tools", "docker", "agents/chat/recipe"):
    if str(ROOT / _root) not in sys.path:
        sys.path.append(str(ROOT / _root))
