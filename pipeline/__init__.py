"""The login node: from a configuration to units of work, and from files to what is still to do.

Never imports torch. Order of a launch: config, grid, observe, plan, submit.
"""

import runpy as _runpy
from pathlib import Path as _Path

_runpy.run_path(str(_Path(__file__).parents[1] / "configs" / "roots.py"))
