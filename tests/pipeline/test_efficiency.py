"""What units used, by their logs."""

import shutil
from pathlib import Path

import pytest

from configs.entry import run_command
from jobs.files.store import Store
from jobs.processes.usage import Usage, clocks, log_usage, read_usage
from pipeline.efficiency import efficiency
from pipeline.launch import launch
from tests.grids import tiny
from tests.pipeline.fake_slurm import FakeSlurm

LINE = 'x INFO used {{"wall_s": {}, "cpu_s": {}, "memory_gb": {}, "gpu_memory_gb": 20, "gpu_total_gb": 80}}\n'


def test_what_a_process_used_is_read_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        log_usage(clocks())
    (record,) = caplog.records
    log = tmp_path / "unit.log"
    log.write_text(f"x {record.levelname} {record.getMessage()}\n")
    usage = read_usage(log)
    assert usage is not None
    assert 0 <= usage.cpu_s < 60
    assert 0.01 < usage.memory_gb < 100


def test_the_last_run_counts_and_other_logs_say_nothing(tmp_path: Path) -> None:
    log = tmp_path / "unit.log"
    assert read_usage(log) is None
    log.write_text("x INFO begin\nx INFO used {broken}\n")
    assert read_usage(log) is None
    log.write_text(LINE.format(1, 2, 3) + LINE.format(60, 90, 2.5) + "x INFO end\n")
    assert read_usage(log) == Usage(wall_s=60, cpu_s=90, memory_gb=2.5, gpu_memory_gb=20, gpu_total_gb=80)


def test_options_are_advised_by_the_unit_that_used_most(
    fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("launch", launch, tiny(results, "cluster=slurm")) == 0
    store = Store(results)
    for name, line in {"a": LINE.format(60, 90, 2.5), "b": LINE.format(600, 300, 7.9)}.items():
        path = store.log_path("tiny", f"train/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line)
    capsys.readouterr()
    assert run_command("efficiency", efficiency, ["grid=tiny", f"results={results}"]) == 0
    out = capsys.readouterr().out
    (row,) = [" ".join(line.split()) for line in out.splitlines() if line.startswith("train")]
    assert row == "train 2 7.9 of 16 1.5 of 2 10 of 720 25%"
    assert "advice: cluster.train.mem_gb=10 cluster.train.time_min=20\n" in out
    shutil.rmtree(store.log_path("tiny", "x").parent)
    assert run_command("efficiency", efficiency, ["grid=tiny", f"results={results}"]) == 0
    assert "no usage was recorded yet" in capsys.readouterr().out
