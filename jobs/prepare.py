"""python -m jobs.prepare DATASET FOLDER [--results RESULTS]: get a dataset ready, once.

Downloads a data set if possible, and checks it: both splits of a tree must have the same classes,
and every image must be decodable. The result is recorded in the results folder, so that nothing is
checked twice. A launch does this automatically when needed; workers never do. On a cluster whose
login node ends long processes, run it as a separate job.

Exit codes: 0 ready, 2 the data are missing, broken or not available.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import filelock

from jobs.datasets import data_folder, dataset_module
from jobs.errors import ConfigError, DataError
from jobs.files.folders import check_writable
from jobs.files.store import Store
from jobs.wording import say


def is_prepared(name: str, data: Mapping[str, str | None], store: Store) -> bool:
    """Whether workers can read a dataset. Decodes nothing. Raises ConfigError if its folder is not there or right."""
    folder = data_folder(name, data)
    if folder is None:
        return True
    module = dataset_module(name)
    module.check(folder, ("test",))  # for certification; a launch that trains checks the training images before
    return bool(module.is_prepared(folder, store.data_dir()))


def prepare(name: str, data: Mapping[str, str | None], store: Store) -> None:
    """Prepare a dataset, one process at a time; does nothing if it is ready.

    Raises as ``is_prepared``, and DataError if it cannot be downloaded, or images are broken; names them.
    """
    folder = data_folder(name, data)
    if folder is None or is_prepared(name, data, store):
        return
    store.data_dir().mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(store.data_dir() / f".{name}.lock"):
        if not is_prepared(name, data, store):
            dataset_module(name).prepare(folder, store.data_dir())


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m jobs.prepare", description=__doc__.partition("\n")[2])
    parser.add_argument("dataset", help="cifar10, cifar10_images, digits or imagenet")
    parser.add_argument("folder", help="folder of the data set, as in data.NAME")
    parser.add_argument("--results", default="results", help="folder of all results")
    chosen = parser.parse_args(arguments)
    data, results = {chosen.dataset: chosen.folder}, Path(chosen.results)
    try:
        if not is_prepared(chosen.dataset, data, Store(results)):
            check_writable(results, "--results")
            prepare(chosen.dataset, data, Store(results))
    except (ConfigError, DataError, OSError) as error:  # OSError: a full disk, a folder that may not be read
        for line in str(error).splitlines():
            say(f"error: {line}", sys.stderr)
        return 2
    needs_none = data_folder(chosen.dataset, data) is None
    say(f"{chosen.dataset} is ready{': it needs no folder' if needs_none else f' in {chosen.folder}'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
