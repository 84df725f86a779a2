"""Models with given radii, and small trees of logs in the published format."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.models import ROW_COLUMNS, CertifiedGrid, CertifiedModel
from analysis.selection import Parameters
from jobs.files.layouts import CERTIFICATION
from jobs.files.summary import SUMMED, summary_of
from smoothing.bounds import clopper_pearson_lower
from smoothing.radius import ABSTAIN, certified_radius

N, ALPHA = 1000, 0.001


def parameters(label: str, **known: Any) -> Parameters:
    """Parameters of a model certified at sigma 0.25."""
    values: dict[str, Any] = {
        "train_key": f"digits-{label}-00000000",
        "certify_key": "s0.25-n1000-00000000",
        "dataset": "digits",
        "split": "test",
        "method": "gaussian" if label.startswith("gaussian") else "smoothadv",
        "sigma_train": 0.25,
        "sigma_cert": 0.25,
        "n": N,
        "alpha": ALPHA,
        "mode": "paper",
    }
    return Parameters(**{**values, **known})


def seeds(label: str, *radii: Sequence[float], **known: Any) -> list[CertifiedModel]:
    """Models that differ only in their seed, by the radii of each."""
    return [
        replace(model(f"{label} seed {seed}", values, seed=seed, recipe=label, **known), shared_label=label)
        for seed, values in enumerate(radii)
    ]


def model(label: str, radii: Sequence[float], indices: Sequence[int] | None = None, **known: Any) -> CertifiedModel:
    """A model with given radii and no votes; a negative radius is that of a wrong prediction."""
    values = np.array(radii, dtype=np.float64)
    columns: dict[str, Any] = {
        "index": range(values.size) if indices is None else indices,
        "prediction": np.zeros(values.size, dtype=np.int32),
        "correct": values >= 0,
        "radius": np.abs(values),
    }
    return CertifiedModel(label=label, parameters=parameters(label, **known), rows=_rows(columns, values.size))


def voted(label: str, votes: Sequence[int], labels_match: Sequence[bool] | None = None, **known: Any) -> CertifiedModel:
    """A model whose images got these numbers of N votes for the class selected, two classes, label 0."""
    count = np.array(votes)
    matches = np.ones(count.size, dtype=bool) if labels_match is None else np.array(labels_match)
    told = parameters(label, **known)
    n, alpha = told.n or N, told.alpha or ALPHA
    p_lower = clopper_pearson_lower(count, n, alpha)
    selected = np.where(matches, 0, 1)
    certifies = p_lower >= 0.5
    columns = {
        "index": range(count.size),
        "prediction": np.where(certifies, selected, ABSTAIN),
        "correct": certifies & matches,
        "radius": np.where(certifies, certified_radius(p_lower, told.sigma_cert), 0.0),
        "p_lower": p_lower,
        "count_top": count,
        "n_used": np.full(count.size, n),
        "stop": ["full"] * count.size,
        "elapsed_s": np.full(count.size, 0.5),
        "label": np.zeros(count.size),
        "counts0": [[100, 0] if match else [0, 100] for match in matches],
    }
    rows = _rows(columns, count.size, SUMMED)
    return CertifiedModel(label=label, parameters=told, rows=rows, summary=summary_of(rows))


def grid(*models: CertifiedModel, missing: Sequence[str] = ()) -> CertifiedGrid:
    """A grid of models."""
    return CertifiedGrid(name="tiny", models=models, missing=tuple(missing))


def write_log(root: Path, path: str, rows: Sequence[tuple[int, int, int, str]], time: str = "0:00:01.5") -> Path:
    """A certification log: (idx, label, predict, radius as printed) per line."""
    lines = ["idx\tlabel\tpredict\tradius\tcorrect\ttime"]
    lines += [
        f"{index}\t{label}\t{guess}\t{radius}\t{int(label == guess)}\t{time}" for index, label, guess, radius in rows
    ]
    return write_text(root, path, "\n".join(lines) + "\n")


def write_predictions(root: Path, path: str, rows: Sequence[tuple[int, int, int]]) -> Path:
    """A prediction log: (idx, label, predict) per line."""
    lines = ["idx\tlabel\tpredict\tbasePredict\tcorrect\ttime"]
    lines += [f"{index}\t{label}\t{guess}\t{guess}\t{int(label == guess)}\t0:00:01" for index, label, guess in rows]
    return write_text(root, path, "\n".join(lines) + "\n")


def write_text(root: Path, path: str, text: str) -> Path:
    """A file below a root, with its folders."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def cifar_path(attack: str, epsilon: int, sigma: str, m_train: int = 1) -> str:
    """A path as in the published tree: PGD_2steps, eps_64, ..."""
    multi = f"{attack}_multiNoiseSamples/{m_train}-multitrain" if m_train > 1 else attack
    return f"data/certify/cifar10/{multi}/eps_{epsilon}/cifar10/resnet110/noise_{sigma}/test/sigma_{sigma}"


def cohen_path(sigma: str, sigma_cert: str | None = None) -> str:
    """A path of Cohen et al.'s logs."""
    return f"data_cohen/certify/cifar10/resnet110/noise_{sigma}/test/sigma_{sigma_cert or sigma}"


def _rows(columns: Mapping[str, Any], num_rows: int, more: Sequence[str] = ()) -> pa.Table:
    fields = [CERTIFICATION.schema.field(name) for name in (*ROW_COLUMNS, *more)]
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(num_rows, field.type)
        for field in fields
    ]
    return pa.Table.from_arrays(arrays, names=[field.name for field in fields])
