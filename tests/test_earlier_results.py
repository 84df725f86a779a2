"""A results folder that an earlier version made stays valid: nothing is done again, and the numbers are the same.

``fixtures/results-0`` holds results that commit 9c8052a made on a SLURM cluster with the command line below, and the
numbers that its envelope and its report showed.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.envelope import envelope
from analysis.report.__main__ import report
from configs.composition import compose_config
from configs.entry import run_command
from jobs.files.manifest import read_manifest
from jobs.files.store import Store
from pipeline.launch import launch
from pipeline.request.config import parse_launch
from pipeline.status import look
from tests.conftest import EARLIER
from tests.pipeline.fake_slurm import FakeSlurm

COMMAND_LINE = [
    "grid=digits",
    "grid.name=old",
    "grid.blocks=[{method: gaussian, sigma: 0.25}, "
    "{method: smoothadv, attack: pgd, sigma: 0.25, epsilon: 0.5, m_train: 2, num_steps: 2, warmup_epochs: 1}]",
    "train.epochs=3",
    "certify.n=200",
    "certify.indices.stop=20",
    "attack=digits",
    "attack.epsilon=0.5",
    "cluster.num_shards=2",
]
KEYS = {
    "train/digits-gaussian-s0.25-21847f15",
    "train/digits-pgd-s0.25-e0.50-m2-t2-a063bb98",
    "certify/digits-gaussian-s0.25-21847f15/s0.25-n200-be7f0eab",
    "certify/digits-pgd-s0.25-e0.50-m2-t2-a063bb98/s0.25-n200-633b2b95",
    "attack/digits-gaussian-s0.25-21847f15/pgd-s0.25-e0.50-m16-t20-84cd6f36",
    "attack/digits-pgd-s0.25-e0.50-m2-t2-a063bb98/pgd-s0.25-e0.50-m16-t20-136d2f78",
}


def _files(results: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every file but the launch lock."""
    paths = [path for path in results.rglob("*") if path.is_file() and path != Store(results).launch_lock_path()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


@pytest.mark.parametrize("cluster", ["debug", "slurm"])
def test_a_launch_has_nothing_to_do_and_status_calls_everything_done(
    earlier: Path, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{fake.bin}:{os.environ['PATH']}")
    before = _files(earlier)
    assert run_command("launch", launch, [*COMMAND_LINE, f"results={earlier}", f"cluster={cluster}"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    store = Store(earlier)
    states = look(read_manifest(store.manifest_path("old")), store)
    assert len(list(states.units)) == 11
    assert {item.state for item in states.units} == {"done"}
    assert _files(earlier) == before
    assert fake.calls("sbatch") == 0


def test_keys_are_the_same(earlier: Path) -> None:
    manifest = read_manifest(Store(earlier).manifest_path("old"))
    assert manifest == parse_launch(compose_config("launch", [*COMMAND_LINE, f"results={earlier}"])).manifest
    assert {f"train/{key}" for key in manifest.models} | {run.name for run in manifest.runs} == KEYS


def test_envelope_and_report_show_the_same_numbers(earlier: Path) -> None:
    arguments = ["grid=old", f"results={earlier}"]
    assert run_command("envelope", envelope, arguments) == 0
    then, now = (pd.read_csv(path / "envelope.csv") for path in (EARLIER, Store(earlier).envelope_dir("old")))
    pd.testing.assert_frame_equal(now[then.columns], then, rtol=1e-12)
    assert run_command("report", report, arguments) == 0
    page = _page_data(Store(earlier).report_path("old"))
    shown = json.loads((EARLIER / "report.json").read_text())
    assert {name: page[name] for name in shown} == shown


def _page_data(path: Path) -> dict[str, Any]:
    (found,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', path.read_text(), re.DOTALL)
    content: dict[str, Any] = json.loads(found)
    return content
