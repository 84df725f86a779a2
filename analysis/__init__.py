"""Tables and figures from certification records. Never imports torch."""

import runpy as _runpy
from pathlib import Path as _Path

_runpy.run_path(str(_Path(__file__).parents[1] / "configs" / "roots.py"))
