"""The command pipeline.predict: classes and certified radii of image files, by a finished model."""

import csv
import glob
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from tabulate import tabulate

from jobs.datasets import DatasetInfo, open_files
from jobs.datasets._tree import SUFFIXES
from jobs.errors import CheckpointError, ConfigError, DataError
from jobs.files.manifest import open_grid
from jobs.files.store import Store
from jobs.host import num_cpus
from jobs.networks.checkpoint import check_plugins, load_classifier
from jobs.networks.inference import for_inference
from jobs.processes.device import set_up_device
from jobs.specs.certify import CertifySpec
from jobs.specs.keys import MAX_ALPHA
from jobs.specs.runs import Run
from jobs.specs.units import Resources
from jobs.validation import STRICT, build, unknown_choice
from jobs.wording import shortened, wrapped
from smoothing.certificate import Certificate
from smoothing.certify import LabelledImage, certify_images
from smoothing.counts import LogitsError
from smoothing.distributions import noise_distribution
from smoothing.radius import ABSTAIN, format_radius

_DECIMALS = 4


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PredictConfig:
    """Options of the command; see configs/predict.yaml."""

    run: str | None
    source: str | None
    grid: str | None
    results: Annotated[str, Field(min_length=1)]
    n0: int | None
    n: int | None
    alpha: Annotated[float, Field(gt=0, le=MAX_ALPHA)] | None
    seed: int | None
    format: Literal["text", "json", "csv"]
    plugins: str | None


def predict(values: Mapping[str, Any]) -> int:
    """Print class and radius of image files; returns the exit code.

    Raises ConfigError, with all files that are no images of the model's data set, or CheckpointError.
    """
    config = build(PredictConfig, values, where="predict")
    store = Store(Path(config.results))
    run, paths = _chosen(store, config.grid, config.run), _files(config.source)
    given = {name: value for name in ("n0", "n", "alpha", "seed") if (value := getattr(config, name)) is not None}
    # The label is unknown, so no class counts as wrong.
    spec = build(CertifySpec, {**asdict(run.certify), **given, "stop_wrong": False}, where="predict")
    try:
        levels = open_files(run.train.source, paths).pixels()
    except DataError as error:
        raise ConfigError(str(error).splitlines()) from error
    certificates = _certified(run, spec, levels, store, config.plugins)
    info = run.train.info
    rows = [_row(path, one, spec, info) for path, one in zip(paths, certificates, strict=True)]
    if config.format == "json":
        print(json.dumps(rows, indent=2))
    elif config.format == "csv":
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        print(_table(rows, spec))
    return 0


def _chosen(store: Store, grid: str | None, name: str | None) -> Run:
    """The run with a name: the model's name in tables, its key, or KEY/CERTIFY_KEY."""
    grids = store.grid_names() if grid is None and store.grid_names() else [grid]
    runs = {run.place: run for one in grids for run in open_grid(store, one).of("certify")}.values()
    names = {run.place: _names(run) for run in runs}
    found = [run for run in runs if name in names[run.place]]
    tables = sorted({own[0] for own in names.values()})
    if name is None:
        raise ConfigError(f"run is required; write run=NAME, one of: {', '.join(tables)}")
    if not found:
        raise ConfigError(unknown_choice("run", name, tables, also_near=[own[1] for own in names.values()]))
    if len(found) > 1:
        listed = ", ".join(names[run.place][-1] for run in found)
        raise ConfigError(f"run: {name} is the name of {len(found)} certifications; write run= one of {listed}")
    if not store.checkpoint_path(found[0].train.key).exists():
        raise ConfigError(f"run: {found[0].train.key} is not trained yet; launch its grid")
    return found[0]


def _names(run: Run) -> tuple[str, str, str]:
    key = run.train.key
    return key.removeprefix(f"{run.train.dataset}-").rpartition("-")[0], key, run.keys


def _files(source: str | None) -> list[Path]:
    if not source:
        raise ConfigError("source is required; write source=PATH of an image file or a folder of them")
    path = Path(source)
    if path.is_dir():
        found = sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES)
    else:
        found = [path] if path.exists() else sorted(map(Path, glob.glob(source, recursive=True)))
    if not found:
        what = f"no image file ({', '.join(SUFFIXES)}) in this folder" if path.is_dir() else "no such file"
        raise ConfigError(f"source: {source}: {what}")
    return found


def _certified(
    run: Run, spec: CertifySpec, levels: npt.NDArray[np.uint8], store: Store, plugins: str | None
) -> list[Certificate]:
    """One certificate per image; its noise depends on the seed and on its pixels, not on the other files."""
    info, device = run.train.info, set_up_device(Resources(threads=num_cpus(), plugins=plugins))
    path = store.checkpoint_path(run.train.key)
    trained = load_classifier(path, run.train, device)
    if run.train.network_plugins:
        check_plugins(path, {"plugins": trained.plugins}, run.train)
    indices = [int.from_bytes(hashlib.sha256(one.tobytes()).digest()[:8]) for one in levels]
    scaled = levels.astype(np.float32) / np.float32(info.num_levels)
    images = [
        LabelledImage(index=index, label=ABSTAIN, image_CHW=torch.from_numpy(image_CHW))
        for index, image_CHW in dict(zip(indices, scaled, strict=True)).items()
    ]
    try:
        done = certify_images(
            for_inference(trained.classifier, spec.precision, device),
            images,
            spec,
            noise_distribution(spec.noise, spec.sigma_cert, info.num_levels),
            num_classes=info.num_classes,
            seed=spec.seed,
            batch_size=Resources.batch_size,
            device=device,
        )
        by_index = {image.index: certificate for image, certificate in done}
    except LogitsError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return [by_index[index] for index in indices]


def _row(path: Path, certificate: Certificate, spec: CertifySpec, info: DatasetInfo) -> dict[str, Any]:
    prediction = certificate.prediction
    return {
        "file": str(path),
        "abstains": prediction == ABSTAIN,
        "prediction": prediction,
        "class": None if prediction == ABSTAIN else (info.class_names or range(info.num_classes))[prediction],
        "radius": certificate.radius,
        "p_lower": certificate.p_lower,
        "count_top": certificate.count_top,
        "n_used": int(certificate.counts.sum()),
        **{name: getattr(spec, name) for name in ("train_key", "sigma_cert", "n0", "n", "alpha", "noise", "seed")},
    }


def _table(rows: Sequence[Mapping[str, Any]], spec: CertifySpec) -> str:
    cells = [
        [
            shortened(row["file"], 26),  # leaves room for the other columns within 80
            "abstains" if row["abstains"] else row["class"],
            "-" if row["abstains"] else format_radius(row["radius"], _DECIMALS),
            format_radius(row["p_lower"], _DECIMALS),
            f"{row['count_top']:,} of {row['n_used']:,}",
        ]
        for row in rows
    ]
    note = (
        f"Model {spec.train_key}, sigma={spec.sigma_cert:g}, n0={spec.n0}, n={spec.n}, alpha={spec.alpha:g}. Within "
        "the l2 radius (pixels in [0, 1]) the smoothed classifier gives this class everywhere. Each certificate is "
        "wrong with probability at most alpha."
    )
    table = tabulate(cells, ["file", "class", "radius", "p lower", "votes"], disable_numparse=True)
    return f"{table}\n\n{wrapped(note)}"
