"""Checks that all five packages are ours; ``pipeline`` and ``analysis`` run it before they import anything.

It is run as a file by its path, not imported, because it checks whether imports can be trusted.
"""

import importlib.util
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

for name in ("smoothing", "jobs", "configs", "pipeline", "analysis"):
    spec = importlib.util.find_spec(name)
    places = [] if spec is None else [Path(place).resolve() for place in spec.submodule_search_locations or []]
    if places != [ROOT / name]:
        found = ", ".join(map(str, places)) or "nothing"
        problem = (
            f"error: Python finds the package {name} at {found} instead of {ROOT / name}; "
            "change to another folder, rename yours, or use the command smoothadv"
        )
        print(textwrap.fill(problem, 80, break_long_words=False, break_on_hyphens=False), file=sys.stderr)
        sys.exit(2)
