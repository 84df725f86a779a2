"""No line that analysis prints is wider than the terminal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.envelope import envelope
from analysis.import_logs import import_logs
from analysis.paired import paired
from analysis.paper.__main__ import paper
from configs.entry import run_command
from tests.analysis.models import cifar_path, cohen_path, write_log, write_predictions, write_text

LONG = "data/certify/cifar10/self_training_PGD_10steps_30epochs_multinoise/eps_127/cifar10/resnet110"
ROWS = [(20 * number, 0, 0 if number < 18 else -1, f"0.{number:03}" if number < 18 else "0.0") for number in range(20)]
PARTIAL = "allow_partial=true"


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published logs with long names, of which one is short, one empty and one has a wrong label, in ``logs``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    root = tmp_path / "logs"
    for sigma in ("0.12", "0.25", "0.50", "1.00"):
        write_log(root, cohen_path(sigma), ROWS)
        write_log(root, cifar_path("PGD_10steps", 127, sigma, 8), ROWS)
    for folder in (LONG, LONG.replace("30epochs", "60epochs")):
        far = [(*row[:3], "1.5") for row in ROWS[:18]]
        write_log(root, f"{folder}/noise_0.50/test/sigma_0.50", [*far, *ROWS[18:]])
    write_log(root, f"{LONG}/noise_0.25/test/sigma_0.25", ROWS[:3])
    write_text(root, f"{LONG}/noise_0.12/test/sigma_0.12", "")
    write_log(root, f"{LONG}/noise_1.00/test/sigma_1.00", [(0, 1, 1, "0.5"), *ROWS[1:4]])
    for epsilon in ("0.25", "0.50"):
        path = f"data/predict/predict_cifar_ours/N1000/PGD_{epsilon}/num_8/predictions"
        write_predictions(root, path, [(20 * number, 0, number % 2) for number in range(20)])


def _printed(
    name: str, command: Callable[[dict[str, Any]], int], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> str:
    assert run_command(name, command, arguments) == 0
    text = capsys.readouterr().out
    too_wide = [line for line in text.splitlines() if len(line) > 80]
    assert not too_wide
    return text


@pytest.mark.usefixtures("logs")
def test_output_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    text = _printed("import_logs", import_logs, ["source=logs", "grid=old"], capsys)
    assert "30epochs_multinoise" in text
    text = _printed("envelope", envelope, ["grid=old", PARTIAL], capsys)
    assert "SmoothAdv" in text
    assert "Gaussian" in text
    assert " / " in text, "the paper's numbers make the table widest"
    assert "multinoise" in text, "a long label is cut, not left out"
    _printed("envelope", envelope, ["grid=old", PARTIAL, "where={method: gaussian}", "step=0.0625"], capsys)
    text = _printed("paired", paired, ["grid=old", PARTIAL, "radius=0.01", "where_b={method: gaussian}"], capsys)
    assert "so p is optimistic" in " ".join(text.split())
    assert "Figures" in _printed("paper", paper, ["source=logs"], capsys)
    assert "Tables" in _printed("paper", paper, ["grid=old"], capsys)
