"""Puts the agents' folders on the import path, and keeps the runtimes from phoning home before they are imported."""

import os
import sys
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["ORT_GENAI_TELEMETRY_DISABLED"] = "1"

ROOT = Path(__file__).parents[3]
for folder in (ROOT / "agents" / "chat" / "recipe", ROOT / "agents" / "embed"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
