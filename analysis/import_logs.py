"""python -m analysis.import_logs source=DIR grid=NAME: published TSV logs as Parquet records."""

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("import_logs", "analysis.import_logs")

import csv
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from analysis.logs.files import HEADERS
from analysis.logs.mapping import read_mapping
from analysis.logs.tree import LogTree, read_tree, source_folder
from configs.entry import EXIT_FAILED
from jobs.atomic import write_atomically, write_json
from jobs.errors import ConfigError, RecordError
from jobs.files import imported, records
from jobs.files.code import git_commit
from jobs.files.folders import check_writable
from jobs.files.manifest import GridOptions
from jobs.files.store import Store
from jobs.specs.runs import GridName
from jobs.validation import STRICT, build
from jobs.wording import columns, counted, shortened, wrapped

_SHOWN = 12  # findings on the screen; import-report.csv has all


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImportConfig(GridOptions):
    """Options of the command; see configs/import_logs.yaml."""

    source: str | None
    grid: GridName | None
    mapping: str | None
    strict: bool


def import_logs(values: dict[str, Any]) -> int:
    """Import a tree of logs; returns the exit code. Raises ConfigError or RecordError before anything is written."""
    config = build(ImportConfig, values, where="")
    root, store = source_folder(config.source), config.store
    if config.grid is None:
        raise ConfigError("grid is required; write grid=NAME to name the imported grid")
    if config.grid in store.grid_names():
        raise ConfigError(f"grid {config.grid} was launched in {store.root}; choose another name")
    tree = read_tree(root, read_mapping(config.mapping))
    print(_summary(tree))
    if not tree.logs:
        header = " ".join(HEADERS["certification"])
        raise RecordError(f"nothing to import: {root} contains no valid log; a log begins with the header {header}")
    check_writable(store.root, "results")
    question = {**asdict(config), "num_files": tree.num_files, "num_models": len(tree.models)}
    print("\n".join(f"wrote {path}" for path in write_tree(tree, store, config.grid, root, question)))
    results = shlex.quote(str(store.root))
    print(f"next: python -m analysis.envelope grid={config.grid} results={results} allow_partial=true")
    return EXIT_FAILED if config.strict and not all(finding.is_harmless for finding in tree.findings) else 0


def write_tree(tree: LogTree, store: Store, grid: str, root: Path, question: Mapping[str, Any]) -> list[Path]:
    """Write the records, predictions and report of an imported grid, and last its listing, which completes it."""
    metadata = {"source": f"imported from {root.name}"}
    report = store.import_report_path(grid)
    certified, predicted = store.records_path(grid), store.predictions_path(grid)
    write_atomically(report, lambda path: _write_report(path, tree))
    write_json(report.with_suffix(".json"), {**question, "code_version": git_commit()})
    records.write_records(certified, tree.tables("certification"), metadata, imported.IMPORTED)
    records.write_records(predicted, tree.tables("prediction"), metadata, imported.PREDICTIONS)
    imported.write_listing(store, grid, tree.models)
    return [report, certified, predicted, store.import_path(grid)]


def _write_report(path: Path, tree: LogTree) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "rows", "verdict", "reason"])
        writer.writerows([one.path, one.num_rows, one.verdict, one.reason] for one in tree.findings)


def _summary(tree: LogTree) -> str:
    kinds = Counter(finding.kind for finding in tree.findings)
    quiet = ("not a log", "rounded up in print")  # only import-report.csv lists these
    shown = [finding for finding in tree.findings if finding.kind not in quiet][:_SHOWN]
    certified, predicted = tree.of("certification"), tree.of("prediction")
    rows = [counted(sum(entry.num_rows for entry in logs), "row") for logs in (certified, predicted)]
    totals = f"{counted(len(certified), 'certification log')} ({rows[0]}), {rows[1]} of prediction logs"
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"
    lines = [wrapped(f"{counted(tree.num_files, 'file')}: {totals}"), wrapped(f"findings: {found}", "  ")]
    for finding in shown:
        verdict = f"{finding.verdict} ({counted(finding.num_rows, 'row')}); {finding.reason}"
        words = [shortened(word, columns() - 4) for word in verdict.split()]  # some are paths
        lines += [f"  {shortened(finding.path, columns() - 2)}", wrapped(f"    {' '.join(words)}", "    ")]
    if tree.logs and len(tree.findings) > len(shown):  # without logs there is no report
        lines.append(f"  and {len(tree.findings) - len(shown)} more in import-report.csv")
    return "\n".join(lines)
