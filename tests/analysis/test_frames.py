"""A grid as pandas, for notebooks."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.envelope import envelope
from analysis.frames import load_grid
from configs.entry import run_command
from jobs.errors import ConfigError
from jobs.files import records
from jobs.files.store import Store

LABELS = ["gaussian-s0.25", "pgd-s0.25-e0.50-m2-t2"]


def test_the_envelope_is_that_of_the_command(earlier: Path, tmp_path: Path) -> None:
    assert run_command("envelope", envelope, ["grid=old", f"results={earlier}", f"output={tmp_path / 'out'}"]) == 0
    written = pd.read_csv(tmp_path / "out" / "envelope.csv")
    frames = load_grid("old", earlier)
    pd.testing.assert_frame_equal(frames.envelope, written, check_dtype=False)
    assert list(frames.models["model"]) == LABELS


def test_records_are_all_rows_and_curves_count_them(earlier: Path) -> None:
    frames = load_grid("old", earlier, radii=[0.0, 0.3])
    table = records.read_records(Store(earlier).records_path("old")).to_pandas()
    assert list(frames.records["model"].unique()) == LABELS
    for name in ("index", "label", "prediction", "radius", "p_lower", "count_top"):
        assert frames.records[name].tolist() == table[name].tolist()
    for label in LABELS:
        own = frames.records[frames.records["model"] == label]
        for radius in (0.0, 0.3):
            assert frames.curves[label].loc[radius] == (own["correct"] & (own["radius"] >= radius)).mean()


def test_conditions_and_errors_are_those_of_the_commands(earlier: Path) -> None:
    assert list(load_grid("old", earlier, where={"method": "gaussian"}).curves) == LABELS[:1]
    with pytest.raises(ConfigError, match="unknown grid 'new'; valid: old"):
        load_grid("new", earlier)


def test_it_does_not_import_torch() -> None:
    code = "import sys, analysis.frames; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
