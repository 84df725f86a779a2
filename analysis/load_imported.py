"""The certified models of grids that were imported from published logs."""

from operator import attrgetter

from analysis.models import (
    CertifiedGrid,
    CertifiedModel,
    check_comparable,
    image_set,
    incomplete_message,
    label_models,
    short_ones,
)
from analysis.runs import ALL_ROWS, Reading, read_runs
from analysis.selection import Parameters, Where, select
from jobs.errors import RecordError
from jobs.files import imported
from jobs.files.store import Store
from jobs.wording import counted

# The list of images that a model's indices are positions in
_LIST_OF = attrgetter("parameters.dataset", "parameters.split", "parameters.images")


def load_imported(store: Store, grid: str, where: Where, reading: Reading, *, allow_partial: bool) -> CertifiedGrid:
    """The models of an imported grid that can be compared. Arguments as for ``load_grid``, which calls this."""
    models = load_imported_models(store, grid, where, reading)
    short = {model.label: num_images for model, num_images in short_ones(models, _LIST_OF)}
    missing = [
        f"{model.label}: {model.indices.size} of {counted(short[model.label], 'image')}"
        for model in models
        if model.label in short
    ]
    if short and not allow_partial:
        remedy = "import logs that cover all images (import-report.csv lists the short ones)"
        raise RecordError(incomplete_message(grid, len(models), missing, remedy))
    kept = [model for model in models if model.label not in short]
    check_comparable([model.parameters for model in kept], [image_set(model.indices) for model in kept])
    return CertifiedGrid(name=grid, models=tuple(kept), missing=tuple(missing), is_imported=True)


def load_imported_models(
    store: Store, grid: str, where: Where, reading: Reading = ALL_ROWS
) -> tuple[CertifiedModel, ...]:
    """All models of an imported grid that match, short logs too. Raises ConfigError if none does."""
    listing = {(entry["train_key"], entry["certify_key"]): entry for entry in imported.read_listing(store, grid)}
    known = {key: Parameters.from_columns(entry) for key, entry in listing.items()}
    named, path = label_models(select(known, where, grid)), store.records_path(grid)
    models = {
        key: reading.made(named[key], rows)
        for key, rows in read_runs(path, imported.IMPORTED, reading.columns(), named)
        if len(rows) == listing[key]["num_rows"]
    }
    for key in named:
        if key not in models:
            raise RecordError(f"{path}: the rows of {key[0]} do not match import.json; import the logs again")
    return tuple(models[key] for key in named)
