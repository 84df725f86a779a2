import html
import json
import re
import shutil
import subprocess
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest

from analysis.compare import compare
from analysis.report.__main__ import report
from analysis.report.page import page_data, render
from analysis.statistics import Levels, envelope_frame
from analysis.tables import envelope_cells
from configs.entry import run_command
from jobs.files.store import Store
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
    assert "PARTIAL: missing 1 of 4 certified models." in page
    assert "three: 1 of 3 images" in page
    assert "&lt;unknown&gt;" in page
    assert "The envelope is not a single classifier" in page


def test_what_comes_from_the_records_cannot_break_out() -> None:
    page = _page()
    assert "</script><b>two" not in page
    assert "&lt;/script&gt;&lt;b&gt;two" in page


def test_no_bound_is_rounded_to_the_wrong_side() -> None:
    comparison = compare(GRID)
    frame = envelope_frame(comparison, [0.0, 0.12345], LEVELS)
    page = render(comparison, frame, LEVELS, {})
    rows = re.findall(r'<tr><td data-label="radius">(.*?)</tr>', page, flags=re.DOTALL)
    assert len(rows) == 2
    names = [name for name in frame if name not in ("num_images", "num_models", "baseline_num_models")]
    for number, row in enumerate(rows):
        cells = re.split(r"</td><td[^>]*>", row)
        values = {name: column[number] for name, column in frame.items()}
        shown = dict(zip(names, (cell.removesuffix("</td>") for cell in cells), strict=True))
        assert shown["radius"] == f"{values['radius']:g}"
        for prefix in ("", "baseline_"):
            for name in ("lower", "band_lower", "high_probability", "average_radius"):
                assert float(shown[prefix + name]) <= values[prefix + name] < float(shown[prefix + name]) + 1e-4
            for name in ("upper", "band_upper", "monte_carlo_upper"):
                assert float(shown[prefix + name]) >= values[prefix + name] > float(shown[prefix + name]) - 1e-4
    assert "r = %{x:.6~f}:" in _page()


def test_the_data_are_the_models_curves() -> None:
    data = page_data(compare(GRID), LEVELS)
    counts = np.frombuffer(b64decode(data["counts"]), "<u4").reshape(3, -1)
    for row, one in zip(counts, GRID.models, strict=True):
        assert row.tolist() == one.curve.num_certified(data["radii"]).tolist()
    assert data["models"][1] == {
        **{"label": "one", "method": "smoothadv", "attack": None, "sigma_cert": 0.25},
        **{"epsilon": 0.5, "m_train": 1, "num_steps": None},
    }
    assert data["titles"][1] == "SmoothAdv, \u03c3 = 0.25 [one]"
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
    assert run_command("report", report, ["grid=tiny", f"results={store.root}", f"output={store.root}"]) == 2
    shutil.rmtree(store.root / "runs")
    assert run_command("report", report, ["grid=tiny", f"results={store.root}"]) == 1


def _dom(tmp_path: Path, page: str) -> str:
    """The page as a browser leaves it, after its scripts have run."""
    assert CHROMIUM is not None
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command = [CHROMIUM, *flags, f"--user-data-dir={tmp_path}/profile", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_a_browser_draws_it(tmp_path: Path) -> None:
    dom = _dom(tmp_path, _page())
    assert re.search(r'data-ready-ms="\d+"', dom)  # the script came to its end
    assert dom.count('class="js-line"') >= 2
    assert dom.count('type="checkbox"') >= 6
    assert "SmoothAdv (best of 2)" in dom
    assert "Gaussian (best of 1)" in dom


def test_the_page_has_the_terminals_table_and_columns_for_every_model() -> None:
    comparison = compare(GRID)
    page = _page()
    headers, rows = envelope_cells(comparison, envelope_frame(comparison, [0.0, 0.1], LEVELS))
    for row in rows:
        cells = "".join(
            f'<td data-label="{html.escape(name)}">{html.escape(cell)}</td>'
            for name, cell in zip(headers, row, strict=True)
        )
        assert f"<tr>{cells}</tr>" in page
    for column in ("accuracy under noise", "smoothed accuracy", "abstention rate", "average radius", "\u03c3 cert"):
        assert f">{column}</th>" in page, column


def _at_width(tmp_path: Path, page: str, width: int, script: str) -> str:
    """What a script says of the page in a frame of a width; a window itself has a least width."""
    frame = f'<iframe id="f" style="width: {width}px; height: 900px; border: 0" srcdoc="{html.escape(page)}"></iframe>'
    ready = f"""<script>addEventListener("load", () => {{
        const page = document.getElementById("f").contentDocument;
        document.body.dataset.found = ((document) => {{ {script} }})(page);
    }});</script>"""
    dom = _dom(tmp_path, f"<!DOCTYPE html><body style='margin: 0'>{frame}{ready}</body>")
    found = re.search(r'data-found="(.*?)"', dom)
    assert found is not None
    return found[1]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
@pytest.mark.parametrize("width", [1400, 400])
def test_winner_interval_and_gain_are_in_sight(tmp_path: Path, width: int) -> None:
    script = """
        const cells = [...document.querySelectorAll("#table td")].filter((cell) => cell.offsetParent);
        const right = Math.max(...cells.map((cell) => cell.getBoundingClientRect().right));
        const lines = new Set(cells.map((cell) => Math.round(cell.getBoundingClientRect().top))).size;
        return [cells.length, right, lines, document.documentElement.scrollWidth].join(" ");"""
    num_cells, right, lines, scroll_width = map(float, _at_width(tmp_path, _page(), width, script).split())
    assert num_cells == 2 * 6
    assert right <= width
    assert scroll_width <= width
    assert lines == (2 if width == 1400 else 12)  # one line per row, or stacked


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_models_are_sorted_and_searched(tmp_path: Path) -> None:
    script = """
        const names = () => [...document.querySelectorAll("#models tbody tr")].filter((row) => !row.hidden)
            .map((row) => row.cells[0].textContent.slice(-3)).join(",");
        const headings = [...document.querySelectorAll("#models th")];
        headings.find((heading) => heading.textContent === "average radius").click();
        const found = [names()];
        headings.find((heading) => heading.textContent === "average radius").click();
        found.push(names());
        const search = document.getElementById("search");
        search.value = "gauss 0.25";
        search.dispatchEvent(new document.defaultView.Event("input"));
        return [...found, names()].join(" ");"""
    first, second, searched = _at_width(tmp_path, _page(), 1400, script).split()
    assert first.split(",") == second.split(",")[::-1]
    assert first.split(",")[-1] == "one"
    assert searched == "ian"


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_a_box_that_is_unticked_takes_its_models_out(tmp_path: Path) -> None:
    click = "<script>document.querySelectorAll('input[name=m_train]')[1].click();</script></body>"
    dom = _dom(tmp_path, _page().replace("</body>", click))
    assert "SmoothAdv (best of 1)" in dom
    assert "Gaussian (best of 1)" in dom
