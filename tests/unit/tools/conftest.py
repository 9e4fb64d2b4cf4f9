"""The scripts of ``tools/`` import each other by their bare names, as when Python starts them; so do their tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))
