"""The environment and the limits of SLURM's commands."""

from pathlib import Path

import pytest

from pipeline.state import commands
from pipeline.state.commands import SchedulerError
from pipeline.state.queue import read_queue
from tests.pipeline.fake_slurm import FakeSlurm


def test_only_how_to_reach_slurm_and_what_to_charge_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = {
        "SQUEUE_STATES": "RUNNING",
        "SQUEUE_ACCOUNT": "other",
        "SCANCEL_STATE": "RUNNING",
        "SBATCH_TIMELIMIT": "1",
        "SBATCH_ARRAY_INX": "0-3",
        "SLURM_JOB_ID": "77",
        "SLURM_TIME_FORMAT": "relative",
        "SLURMD_NODENAME": "n1",
        "SUBMITIT_EXECUTOR": "slurm",
    }
    kept = {
        "SLURM_CONF": "/etc/elsewhere.conf",
        "SBATCH_ACCOUNT": "lab",
        "SBATCH_PARTITION": "long",
        "HOME": "/home/x",
    }
    for name, value in (foreign | kept).items():
        monkeypatch.setenv(name, value)
    settings = commands.environment(None)
    assert foreign.keys().isdisjoint(settings)
    assert kept.items() <= settings.items()
    # sbatch would let the variable override the script.
    assert "SBATCH_PARTITION" not in commands.environment(None, given={"partition"})


@pytest.mark.parametrize(
    ("user", "named"),
    [
        ({"SLURM_CLUSTERS": "a"}, "a"),
        ({"SBATCH_CLUSTERS": "b"}, "b"),
        ({"SLURM_CLUSTERS": "a", "SBATCH_CLUSTERS": "b"}, "b"),  # as for sbatch
    ],
)
def test_all_commands_talk_to_the_cluster_that_sbatch_would_use(
    user: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in user.items():
        monkeypatch.setenv(name, value)
    assert commands.default_cluster() == named
    assert commands.environment(commands.default_cluster())["SLURM_CLUSTERS"] == named
    assert commands.environment("c")["SLURM_CLUSTERS"] == "c"
    assert "SLURM_CLUSTERS" not in commands.environment(None)
    assert "SBATCH_CLUSTERS" not in commands.environment(None)


def test_a_command_has_no_input_and_a_limited_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "TIMEOUT_S", 5.0)
    assert commands.run(["sh", "-c", "read line; echo $?"], cluster=None).stdout.strip() == "1"
    monkeypatch.setattr(commands, "TIMEOUT_S", 0.2)
    with pytest.raises(SchedulerError, match="sleep did not answer within 0 s"):
        commands.run(["sleep", "30"], cluster=None)
    with pytest.raises(SchedulerError, match="is not installed here"):
        commands.run([str(tmp_path / "nothing")], cluster=None)


def test_each_cluster_is_asked_and_no_task_is_counted_twice(fake: FakeSlurm) -> None:
    fake.answer("squeue", 'echo "1${SLURM_CLUSTERS:+0}|0|PD|x.y|n1|7||N/A|Priority"; echo "5|0|R|both|n1|7||N/A|None"')
    tasks = read_queue(clusters=[None, "far"], users=[7])
    assert sorted((task.array_id, task.cluster) for task in tasks) == [("1", None), ("10", "far"), ("5", None)]
    assert fake.calls("squeue") == 2
    assert not any(task.is_own for task in tasks)
