"""What the client is made from."""

import json
from pathlib import Path

_FILE = Path(__file__).parents[1] / "workbench" / "surface.json"
_READ = json.loads(_FILE.read_text(encoding="utf-8"))
OPERATIONS, MODELS = _READ["operations"], _READ["models"]
