"""python -m tests.structure [--suite]: how large and how entangled the packages are, and what the tests cost."""

import ast
import contextlib
import ctypes
import itertools
import os
import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import grimp
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("smoothing", "jobs", "configs", "pipeline", "analysis")
NUM_LONGEST = 10
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_UNIT_OR_RUN = re.compile(r"\b\w*(Unit|Run)\b")


def main(arguments: list[str]) -> None:
    """Print tables about the packages; with ``--suite`` run the test suite too, and print its CPU seconds."""
    modules = {
        path: path.read_text(encoding="utf-8") for package in PACKAGES for path in (ROOT / package).rglob("*.py")
    }
    trees = {path: ast.parse(text) for path, text in modules.items()}
    lines = Counter(dict.fromkeys(PACKAGES, 0))
    for path, text in modules.items():
        lines[path.relative_to(ROOT).parts[0]] += len(text.splitlines())
    _print("lines of source", [*lines.items(), ("in all", lines.total())])
    _print("modules per folder", sorted(Counter(str(path.parent.relative_to(ROOT)) for path in modules).items()))
    graph = grimp.build_graph(*PACKAGES)
    _print("imports", sorted(_arrows(graph).items()))
    _print("circles", list(_circles(graph)))
    functions = sorted((function for path, tree in trees.items() for function in _functions(path, tree)), reverse=True)
    _print("longest functions, in lines", [(name, length) for length, name in functions[:NUM_LONGEST]])
    asked = [ast.unparse(call.args[1]) for tree in trees.values() for call in _isinstance_calls(tree)]
    on_units = [classes for classes in asked if _UNIT_OR_RUN.search(classes)]
    _print("isinstance calls", [("on units and runs", len(on_units)), ("in all", len(asked))])
    if "--suite" in arguments:
        _print("test suite", [("CPU seconds", round(_cpu_seconds_of_suite()))])


def _cpu_seconds_of_suite() -> float:
    """User and system time of the suite's processes, also of fork servers that outlive whoever started them."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal"], cwd=ROOT, check=False)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _arrows(graph: grimp.ImportGraph) -> Counter[str]:
    """Imports of one module by another, within each package and between packages."""
    arrows = Counter[str]()
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            ends = importer.partition(".")[0], imported.partition(".")[0]
            arrows["within " + ends[0] if ends[0] == ends[1] else " -> ".join(ends)] += 1
    return arrows


def _circles(graph: grimp.ImportGraph) -> Iterator[tuple[str, str]]:
    """Siblings (packages, or folders and modules of one folder) that import each other, directly or by others."""
    for siblings in (PACKAGES, *(sorted(graph.find_children(parent)) for parent in sorted(graph.modules))):
        for one, other in itertools.combinations(siblings, 2):
            ends = (one, other), (other, one)
            if all(graph.chain_exists(importer, imported, as_packages=True) for importer, imported in ends):
                yield one, other


def _functions(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            yield node.end_lineno - node.lineno + 1, f"{path.relative_to(ROOT)}: {node.name}"


def _isinstance_calls(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            yield node


def _print(title: str, rows: Sequence[tuple[str, object]]) -> None:
    print(tabulate(rows, headers=[title, ""], intfmt=",") if rows else f"{title}\n(none)", end="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
