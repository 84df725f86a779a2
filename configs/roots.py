"""Whether all five packages are ours: run by ``pipeline`` and ``analysis`` before they import anything.

Run as a file, by its path, and not imported: what is to be found out is whether importing can be trusted.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

for name in ("smoothing", "jobs", "configs", "pipeline", "analysis"):
    spec = importlib.util.find_spec(name)
    places = [] if spec is None else [Path(place).resolve() for place in spec.submodule_search_locations or []]
    if places != [ROOT / name]:
        found = ", ".join(map(str, places)) or "nothing"
        print(
            f"error: the package {name} that Python finds is {found}, and not {ROOT / name}; "
            "work in another folder, rename yours, or call the command smoothadv",
            file=sys.stderr,
        )
        sys.exit(2)
