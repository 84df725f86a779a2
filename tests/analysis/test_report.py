from __future__ import annotations

import json
import re
import shutil
import subprocess
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest

from analysis.compare import compare
from analysis.report import report
from analysis.report_page import page_data, render
from analysis.statistics import Levels, envelope_frame
from configs.entry import run_command
from jobs.store import Store
from tests.analysis.models import grid, model, voted

LEVELS = Levels(confidence=0.95, rho=0.001)
CHROMIUM = shutil.which("chromium")
GRID = grid(
    voted("gaussian", [900, 800, 700], epsilon=0.0, m_train=1),
    voted("one", [990, 980, 560], epsilon=0.5, m_train=1),
    voted("</script><b>two", [999, 520, 510], epsilon=0.25, m_train=2),
    missing=["three: 1 of 3 images"],
)


def _page() -> str:
    comparison = compare(GRID)
    return render(comparison, envelope_frame(comparison, [0.0, 0.1], LEVELS), LEVELS, {"git_commit": "<unknown>"})


def test_the_page_needs_no_network_and_holds_all() -> None:
    page = _page()
    own = re.sub(r"<script>/\*\*.*?</script>", "", page, count=1, flags=re.DOTALL)  # without Plotly's own code
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", own)
    assert "default-src 'none'" in page
    assert "PARTIAL: 1 of 4 models are missing." in page
    assert "three: 1 of 3 images" in page
    assert "&lt;unknown&gt;" in page
    assert "no single model attains the whole envelope" in page


def test_what_comes_from_the_records_cannot_break_out() -> None:
    page = _page()
    assert "</script><b>two" not in page
    assert "&lt;/script&gt;&lt;b&gt;two" in page


def test_the_data_are_the_models_curves() -> None:
    data = page_data(compare(GRID), LEVELS)
    counts = np.frombuffer(b64decode(data["counts"]), "<u4").reshape(3, -1)
    for row, one in zip(counts, GRID.models, strict=True):
        assert row.tolist() == one.curve.num_certified(data["radii"]).tolist()
    assert data["models"][1] == {
        **{"label": "one", "method": "smoothadv", "attack": None, "sigma_cert": 0.25},
        **{"epsilon": 0.5, "m_train": 1, "num_steps": None},
    }
    assert sum(data["bounds"][0]["shares"]) == pytest.approx(100, abs=0.1)
    json.dumps(data, allow_nan=False)


def test_records_without_bounds_or_cost_are_reported_too() -> None:
    comparison = compare(grid(model("one", [0.1, 0.2], n=None, alpha=None)))
    page = render(comparison, envelope_frame(comparison, [0.0], LEVELS), LEVELS, {})
    assert '"bounds": []' in page


def test_the_command_writes_the_page(undisturbed_results: Path, tmp_path: Path) -> None:
    store = Store(Path(shutil.copytree(undisturbed_results, tmp_path / "results")))
    assert run_command("report", report, ["grid=tiny", f"results={store.root}"]) == 0
    page = store.report_path("tiny").read_text()
    assert "The grid is complete." in page
    assert "git_commit" in page
    assert run_command("report", report, ["grid=tiny", f"results={store.root}", "confidence=2"]) == 2
    shutil.rmtree(store.root / "runs")
    assert run_command("report", report, ["grid=tiny", f"results={store.root}"]) == 1


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_a_browser_draws_it(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    page = tmp_path / "report.html"
    page.write_text(_page(), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command = [CHROMIUM, *flags, f"--user-data-dir={tmp_path}/profile", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert re.search(r'data-ready-ms="\d+"', done.stdout)  # the script came to its end
    assert done.stdout.count('class="js-line"') >= 2
    assert done.stdout.count('type="checkbox"') >= 6
