"""python -m analysis.publish grid=NAME output=DIR: a grid with its records, weights, cards and checksums."""

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("publish", "analysis.publish.__main__")

import shutil
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from analysis.compare import compare
from analysis.load import load_grid
from analysis.models import CertifiedModel
from analysis.origin import provenance_of
from analysis.publish.cards import data_card, model_card
from analysis.publish.files import exchange_weights, record_paths, write_checksums
from analysis.runs import Reading
from jobs.aggregate import collect_run, look_at_joined
from jobs.errors import ConfigError, RecordError
from jobs.files.folders import check_writable
from jobs.files.manifest import GridOptions
from jobs.files.store import Store, command_arguments
from jobs.validation import STRICT, build
from jobs.wording import counted, wrapped


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PublishConfig(GridOptions):
    """Options of the command; see configs/publish.yaml."""

    output: str | None


def publish(values: dict[str, Any]) -> int:
    """Write a publication, all of it or nothing; returns the exit code.

    Raises ConfigError, also if the folder is there already, or RecordError if the grid is incomplete or a file damaged.
    """
    config = build(PublishConfig, values, where="publish")
    store, manifest = config.open()
    if not config.output:
        raise ConfigError("output is required; write output=DIR, a new folder")
    target = Path(config.output)
    if target.exists():
        raise ConfigError(f"output: {target} exists; remove it, or choose a new folder")
    grid = load_grid(store, manifest.grid, reading=Reading(keep=CertifiedModel.lean))
    comparison = compare(grid)
    if not look_at_joined(manifest, store)[0]:
        again = f"python -m pipeline.launch {command_arguments(manifest.grid, store.root)} ..."
        raise RecordError(f"grid {manifest.grid} is not aggregated; launch it again ({again})")
    for run in manifest.runs:
        collect_run(run, store)  # reads every shard, and names a damaged one
    check_writable(target.parent, "output")
    root = target.with_name(f".{target.name}.partial")
    shutil.rmtree(root, ignore_errors=True)  # of a publication that was interrupted
    try:
        published = Store(root)
        for path in record_paths(manifest, store):
            copy = root / path.relative_to(store.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        exchange_weights("export", store, published, manifest)
        origin = {name: text for name, text in provenance_of(store, grid).items() if name != "results"}
        (root / "README.md").write_text(data_card(comparison, origin), encoding="utf-8")
        for key, spec in manifest.models.items():
            (published.run_dir(key) / "README.md").write_text(model_card(spec, comparison), encoding="utf-8")
        write_checksums(published)
        root.rename(target)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    models = f"{counted(len(manifest.models), 'model')}, {counted(len(grid.models), 'certified model')}"
    print(wrapped(f"wrote {target}: {models}"))
    print(wrapped("read and complete the cards (README.md) before you publish it: they state no licence"))
    return 0
