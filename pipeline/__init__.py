"""What runs on the login node: turn a configuration and the files of a grid into the units of work that are missing.

Never imports torch. Steps of a launch: config, grid, observe, plan, submit.
"""

import runpy as _runpy
from pathlib import Path as _Path

_runpy.run_path(str(_Path(__file__).parents[1] / "configs" / "roots.py"))
