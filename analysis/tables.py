"""The envelope's table for the screen, for Markdown, for LaTeX, and as CSV."""

from __future__ import annotations

import math
from typing import Literal

import pandas as pd
from tabulate import tabulate

from analysis.compare import Comparison

TableFormat = Literal["simple", "pipe", "latex_booktabs"]


def envelope_table(comparison: Comparison, frame: pd.DataFrame, table_format: TableFormat) -> str:
    """The table as text: accuracies in per cent, intervals rounded outwards."""
    headers = ["r", comparison.name, "model"]
    columns = [[f"{radius:.4g}" for radius in frame["radius"]], _cells(frame, ""), list(frame["model"])]
    if comparison.baseline is not None:
        headers += ["Gaussian", "model", "gain"]
        columns += [
            _cells(frame, "baseline_"),
            list(frame["baseline_model"]),
            [f"{100 * gain:+.1f}" for gain in frame["gain"]],
        ]
    rows = list(zip(*columns, strict=True))
    return tabulate(rows, headers=headers, tablefmt=table_format, disable_numparse=True)


def caption(comparison: Comparison, confidence: float) -> str:
    """What the reader of table or figure must know, in a few sentences."""
    grid, spec = comparison.grid, comparison.grid.models[0].run.certify
    num_searched = len(comparison.envelope.models)
    text = (
        f"Certified accuracy in per cent on {comparison.envelope.num_images} {spec.split} images of "
        f"{grid.models[0].run.train.dataset} (n={spec.n}, alpha={spec.alpha}), with {confidence:.0%} intervals over "
        f"images. Each row takes the best of {num_searched} models at that radius, chosen on the same images; "
        "no single model attains the whole envelope."
    )
    return f"{partial_note(comparison)} {text}" if grid.num_missing else text


def partial_note(comparison: Comparison) -> str:
    """The warning that goes with everything drawn from an incomplete grid."""
    grid = comparison.grid
    return f"PARTIAL: {grid.num_missing} of {grid.num_missing + len(grid.models)} models are missing."


def _cells(frame: pd.DataFrame, prefix: str) -> list[str]:
    return [
        f"{100 * value:.1f} [{math.floor(1000 * lower) / 10:.1f}, {math.ceil(1000 * upper) / 10:.1f}]"
        for value, lower, upper in zip(
            frame[f"{prefix}accuracy"], frame[f"{prefix}lower"], frame[f"{prefix}upper"], strict=True
        )
    ]
