"""Submission, resume and status against fake commands of SLURM; tests/slurm has the real one."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from configs.entry import run_command
from jobs.files.failures import FailureClass, Place, record_death
from jobs.files.manifest import read_manifest
from jobs.files.store import Store
from jobs.specs.indices import IndexRange
from jobs.specs.runs import Manifest
from jobs.specs.units import ShardUnit, TrainUnit, Unit
from pipeline.cancel import cancel
from pipeline.launch import launch
from pipeline.state import commands, joblog
from pipeline.state.activity import slurm_activity
from pipeline.state.queue import read_queue
from pipeline.state.survey import Status, look
from pipeline.status import status
from tests.grids import finished_files, tiny
from tests.pipeline.fake_slurm import FakeSlurm


def _launch(results: Path, *more: str) -> int:
    return run_command("launch", launch, tiny(results, "cluster=slurm", *more))


def _states(results: Path) -> Counter[tuple[str, str]]:
    store = Store(results)
    found = look(read_manifest(store.manifest_path("tiny")), store)
    return Counter((item.unit.stage, item.state) for item in found.units)


def _fail(results: Path, unit: Unit, failure_class: FailureClass, node: str = "n7") -> None:
    place = Place(host=node, gpus="0", job="1_0")
    record_death(Store(results), unit, failure_class, "it failed", results / "log", place=place)


def test_a_launch_calls_sbatch_once_for_each_array(
    fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _launch(results) == 0
    assert "submitted 13 units in 5 arrays (jobs 1, 2, 3, 4, 5)" in capsys.readouterr().out
    assert (fake.calls("sbatch"), fake.calls("squeue"), fake.calls("scontrol")) == (5, 1, 1)
    assert fake.option("array") == ["0-2%3", "0-2%3", "0-2%3", "0-2%3", "0-0%1"]
    assert fake.option("dependency") == [None, *["aftercorr:1"] * 3, "afterany:1:2:3:4"]
    assert fake.option("kill-on-invalid-dep")[1:4] == ["yes"] * 3
    assert set(fake.option("wckey")) == {None}
    assert _states(results) == {("train", "queued"): 3, ("certify", "queued"): 9, ("aggregate", "queued"): 1}


def test_what_is_queued_is_not_submitted_again(
    fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _launch(results) == 0
    assert _launch(results) == 0
    assert "nothing to submit: the rest is in progress" in capsys.readouterr().out
    assert fake.calls("sbatch") == 5


def test_another_grid_waits_for_the_training_they_share(fake: FakeSlurm, results: Path) -> None:
    assert _launch(results) == 0
    assert _launch(results, "grid.name=other", "certify.n=100") == 0
    # Nine shards of three models that are in training already: one array behind the train array.
    assert fake.option("array")[5:] == ["0-8%9", "0-0%1"]
    assert fake.option("dependency")[5:] == ["afterany:1", "afterany:1:6"]


def test_what_vanished_from_the_queue_is_submitted_again(fake: FakeSlurm, results: Path) -> None:
    assert _launch(results) == 0
    fake.clear()
    assert _states(results)[("train", "missing")] == 3
    assert _launch(results) == 0
    assert len(fake.scripts) == 5


@pytest.mark.parametrize(
    ("shell", "message"),
    [
        ("echo slurm_load_jobs error: Unable to contact >&2; exit 1", "squeue failed with exit code 1"),
        ("sleep 30", "squeue did not answer within"),
        ("echo '<html>502 Bad Gateway</html>'; exit 0", "squeue printed a line that is not a job"),
        ("printf '1|0|PD|na'; exit 0", "squeue printed a line that is not a job"),
    ],
)
def test_without_an_answer_of_squeue_nothing_is_submitted_and_status_says_unknown(
    fake: FakeSlurm,
    results: Path,
    shell: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _launch(results) == 0
    fake.answer("squeue", shell)
    if "sleep" in shell:  # the others answer, however slow the machine is
        monkeypatch.setattr(commands, "TIMEOUT_S", 1.0)
    assert _launch(results) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "nothing was submitted" in error
    assert fake.calls("sbatch") == 5
    assert run_command("status", status, ["grid=tiny", f"results={results}"]) == 0
    assert message in capsys.readouterr().out
    assert {state for _, state in _states(results)} == {"unknown"}
    assert run_command("cancel", cancel, ["grid=tiny", f"results={results}"]) == 1
    fake.recover("squeue")
    assert {state for _, state in _states(results)} == {"queued"}


def test_status_asks_squeue_once_and_writes_nothing(fake: FakeSlurm, results: Path) -> None:
    assert _launch(results) == 0
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    num_calls = fake.calls("squeue")
    assert run_command("status", status, ["grid=tiny", f"results={results}", "verbose=true"]) == 0
    assert fake.calls("squeue") == num_calls + 1
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*")} == before


def test_a_refused_array_is_named_and_takes_back_the_others(
    fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = "sbatch: error: Batch job submission failed: Requested node configuration is not available"
    fake.answer("sbatch.3", f"echo '{refusal}' >&2; exit 1")
    assert _launch(results) == 1
    error = capsys.readouterr().err
    assert "SLURM refuses: certify: Batch job submission failed: Requested node configuration" in error
    assert fake.scripts == []
    assert list(Store(results).launches_dir("tiny").iterdir()) == []


@pytest.mark.parametrize("shell", ["echo 'sbatch: error: Unable to contact slurm controller' >&2; exit 1", "exit 124"])
def test_where_sbatch_stops_answering_the_next_launch_goes_on(fake: FakeSlurm, results: Path, shell: str) -> None:
    fake.answer("sbatch.2", shell)
    assert _launch(results) == 1
    assert len(fake.scripts) == 1
    assert _launch(results) == 0
    assert fake.option("dependency") == [None, "afterany:1", "afterany:1:2"]
    assert _states(results) == {("train", "queued"): 3, ("certify", "queued"): 9, ("aggregate", "queued"): 1}


@pytest.mark.parametrize("limit", ["QOSMaxSubmitJobPerUserLimit", "AssocMaxSubmitJobLimit"])
def test_beyond_a_submit_limit_the_next_launch_goes_on(
    fake: FakeSlurm, results: Path, limit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for call in range(2, 9):
        fake.answer(f"sbatch.{call}", f"echo 'sbatch: error: {limit}' >&2; exit 1")
    assert _launch(results) == 0
    assert "10 units not submitted, to stay within the limit on queued jobs" in capsys.readouterr().out
    for call in range(2, 9):
        (fake.folder / f"sbatch.{call}").unlink()
    assert _launch(results) == 0
    assert _states(results) == {("train", "queued"): 3, ("certify", "queued"): 9, ("aggregate", "queued"): 1}


def test_a_submit_limit_below_one_task_is_a_refusal(fake: FakeSlurm, results: Path) -> None:
    for call in range(1, 9):
        fake.answer(f"sbatch.{call}", "echo 'sbatch: error: AssocMaxSubmitJobLimit' >&2; exit 1")
    assert _launch(results) == 1


def test_arrays_are_cut_at_the_cluster_s_size(fake: FakeSlurm, results: Path) -> None:
    (fake.folder / "max_array_size").write_text("2")
    assert _launch(results) == 0
    assert fake.option("array") == [*["0-1%2"] * 4, *["0-0%1"] * 4, "0-0%1"]
    assert fake.option("dependency") == [
        None,
        *["aftercorr:1"] * 3,
        None,
        *["aftercorr:5"] * 3,
        "afterany:1:2:3:4:5:6:7:8",
    ]


def test_what_may_run_at_a_time_is_shared_by_the_arrays_of_a_stage(fake: FakeSlurm, results: Path) -> None:
    assert _launch(results, "cluster.max_parallel=6") == 0
    assert fake.option("array") == ["0-2%3", "0-2%2", "0-2%2", "0-2%2", "0-0%1"]


def test_several_units_in_one_job(fake: FakeSlurm, results: Path) -> None:
    assert _launch(results, "cluster.units_per_job=2") == 0
    assert fake.option("array") == [*["0-1%2"] * 4, "0-0%1"]


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (
            [],
            [
                "--nodes=1",
                "--ntasks=4",
                "--ntasks-per-node=4",
                "--gpus-per-node=4",
                "--cpus-per-task=2",
                "--mem=65536MB",
            ],
        ),
        (
            ["cluster.tasks_per_node=3", "cluster.train.gpus=2", "cluster.train.mem_gb=1.5"],
            ["--nodes=2", "--ntasks=4", "--ntasks-per-node=3", "--gpus-per-node=6", "--mem=4608MB"],
        ),
        (["cluster.tasks_per_node=2", "cluster.train.gpus=0"], ["--nodes=2", "--ntasks=4", "--ntasks-per-node=2"]),
        # One task starts them all.
        (
            ["cluster.tasks_per_node=2", "cluster.use_srun=false"],
            ["--nodes=1", "--gpus-per-node=4", "--cpus-per-task=8", "--mem=65536MB"],
        ),
    ],
)
def test_processes_that_train_a_model_together_are_tasks_of_one_job(
    fake: FakeSlurm, results: Path, options: list[str], lines: list[str]
) -> None:
    mixed = "grid.blocks=[{method: gaussian, sigma: [0.25, 0.5], num_processes: [1, 4]}]"
    assert _launch(results, mixed, "cluster.units_per_job=2", *options) == 0
    # Models of one process share a job, those of four have one each; certification is as always.
    assert fake.option("array") == [*["0-0%1"] * 4, *["0-1%2"] * 4, "0-0%1"]
    assert fake.option("dependency")[:8] == [None, *["aftercorr:1"] * 3, None, *["aftercorr:5"] * 3]
    train, *others = [fake.scripts[4], *fake.scripts[:4], *fake.scripts[5:]]
    for line in lines:
        assert f"#SBATCH {line}\n" in train
    if "cluster.train.gpus=0" in options:
        assert "gpus" not in train
    starts = [line for line in train.splitlines() if "pipeline.slurm.node" in line]
    if "cluster.use_srun=false" in options:
        assert "srun" not in starts[0]
        assert "--ntasks" not in train
    else:
        assert "--cpus-per-task=2 --kill-on-bad-exit=1" in starts[0]
    assert not any("--ntasks" in script or "kill-on-bad-exit" in script for script in others)


def test_every_option_reaches_its_script(fake: FakeSlurm, results: Path) -> None:
    options = [
        "cluster.partition=gpu",
        "cluster.account=lab",
        "cluster.qos=long",
        "cluster.constraint=a100",
        "cluster.exclude='n1,n2'",
        "cluster.gres=scratch:1",
        "cluster.wckey=thesis",
        "+cluster.extra.mail-type=FAIL",
        "+cluster.extra.exclusive=true",
        "cluster.setup=['module load cuda']",
        "cluster.python='apptainer exec --nv image.sif python'",
        "cluster.signal_delay_s=300",
        "cluster.train.gpus=2",
        "cluster.train.cpus=8",
        "cluster.train.mem_gb=32.5",
        "cluster.train.time_min=99",
        "cluster.certify.partition=short",
        "cluster.aggregate.gres=null",
    ]
    assert _launch(results, *options) == 0
    train, *certify, aggregate = fake.scripts
    for line in (
        "--partition=gpu",
        "--account=lab",
        "--qos=long",
        "--constraint=a100",
        "--exclude=n1,n2",
        "--gres=scratch:1",
        "--wckey=thesis",
        "--mail-type=FAIL",
        "--exclusive\n",
        "--requeue\n",
        "--gpus-per-node=2",
        "--cpus-per-task=8",
        "--mem=33280MB",
        "--time=99",
        "--signal=USR2@300",
    ):
        assert f"#SBATCH {line}" in train
    assert "\nmodule load cuda\n" in train
    assert " apptainer exec --nv image.sif python -u -m pipeline.slurm.node " in train
    assert all("#SBATCH --partition=short" in script and "--gpus-per-node=1" in script for script in certify)
    assert "--gpus-per-node" not in aggregate


def test_a_unit_that_failed_twice_for_one_reason_waits_to_be_asked_for(
    fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _launch(results) == 0
    fake.clear()
    run = read_manifest(Store(results).manifest_path("tiny")).runs[0]
    unit = TrainUnit(train=run.train)
    for failure_class in ("bug", "preempted", "preempted", "cuda_oom"):
        _fail(results, unit, failure_class)
    assert _launch(results) == 0  # twice, but for what is nobody's fault
    fake.clear()
    _fail(results, unit, "bug")
    assert _launch(results) == 1
    error = capsys.readouterr().err
    assert f"failed   {unit.name} (bug, attempt 5, node n7)" in error
    assert "1 unit failed twice for the same reason and will not be retried automatically" in error
    assert fake.option("array") == ["0-1%2"] * 4  # the other two models, and no aggregation
    fake.clear()
    assert _launch(results, "retry=data") == 1
    fake.clear()
    assert _launch(results, "retry=bug") == 0
    assert fake.option("array") == [*["0-2%3"] * 4, "0-0%1"]
    fake.clear()
    assert _launch(results, "retry=all") == 0


def test_a_shard_that_failed_twice_waits_also_when_shards_are_cut_anew(
    fake: FakeSlurm, undisturbed_results: Path, results: Path
) -> None:
    shutil.copytree(undisturbed_results, results)
    store = Store(results)
    run = read_manifest(store.manifest_path("tiny")).runs[0]
    shutil.rmtree(store.shards_dir(run.place))
    _fail(results, ShardUnit(run=run, indices=IndexRange(start=0, stop=7)), "cuda_oom")
    _fail(results, ShardUnit(run=run, indices=IndexRange(start=0, stop=21)), "cuda_oom")
    assert _launch(results) == 1
    (script,) = fake.scripts
    assert "#SBATCH --array=0-1%2" in script  # images 7 to 20 failed once only


def test_nodes_at_fault_are_avoided(fake: FakeSlurm, results: Path) -> None:
    assert _launch(results) == 0
    fake.clear()
    run, other, third = read_manifest(Store(results).manifest_path("tiny")).runs
    _fail(results, TrainUnit(train=run.train), "node_fail", "n7")
    _fail(results, TrainUnit(train=other.train), "unknown", "n3")
    _fail(results, TrainUnit(train=third.train), "bug", "n4")  # not the node's fault
    assert _launch(results, "cluster.exclude=n1") == 0
    assert set(fake.option("exclude")) == {"n1,n3,n7"}


def test_where_no_node_is_left_a_bad_one_is_taken(fake: FakeSlurm, results: Path) -> None:
    assert _launch(results) == 0
    fake.clear()
    run = read_manifest(Store(results).manifest_path("tiny")).runs[0]
    _fail(results, TrainUnit(train=run.train), "node_fail", "n7")
    fake.answer("sbatch.6", "echo 'sbatch: error: Requested node configuration is not available' >&2; exit 1")
    assert _launch(results) == 0
    assert fake.option("exclude")[0] is None


@pytest.mark.parametrize("reason", ["DependencyNeverSatisfied", "launch failed requeued held"])
def test_tasks_that_would_stay_for_ever_are_replaced(
    fake: FakeSlurm, results: Path, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _launch(results) == 0
    (fake.folder / "reason").write_text(reason)
    assert run_command("status", status, ["grid=tiny", f"results={results}"]) == 0
    assert f"stuck: SLURM will never run 13 tasks ({reason})" in capsys.readouterr().out
    assert _launch(results) == 0
    assert "they were cancelled, and their units are submitted again" in capsys.readouterr().err
    assert fake.option("dependency")[0] is None
    assert len(fake.scripts) == 5


@pytest.mark.parametrize(
    ("reason", "option"),
    [
        ("QOSMaxWallDurationPerJobLimit", "time_min"),
        ("PartitionTimeLimit", "time_min"),
        ("PartitionConfig", "cpus"),
        ("QOSMaxMemoryPerJob", "mem_gb"),
    ],
)
def test_tasks_that_ask_for_too_much_stay_until_another_launch_asks_for_less(
    fake: FakeSlurm, results: Path, reason: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _launch(results) == 0
    before = fake.scripts
    (fake.folder / "reason").write_text(reason)
    assert _launch(results) == 1
    error = capsys.readouterr().err
    assert f"error: stuck: SLURM will never run 13 tasks ({reason})" in error
    assert "cluster.train" in error
    assert fake.scripts == before
    assert run_command("status", status, ["grid=tiny", f"results={results}"]) == 0
    assert f"({reason}); " in capsys.readouterr().out
    less = [f"cluster.{stage}.{option}=3" for stage in ("train", "certify", "aggregate")]
    assert _launch(results, *less) == 0
    assert "they were cancelled, and their units are submitted again" in capsys.readouterr().err
    assert len(fake.scripts) == 5


def test_what_depends_on_a_stuck_task_is_replaced_with_it(
    fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _launch(results) == 0
    # Task 1 of the train array was held after failed starts; the rest waits, some of it for that task.
    fake.answer(
        "squeue",
        """
        name() { sed -n "s/^#SBATCH --job-name=//p" queue/$1; }
        me=$(id -u)
        for job in $(ls queue); do
            case $job in
            1) set -- "(null)" Priority "(null)" "launch failed requeued held" "(null)" Priority ;;
            5) set -- "afterany:1_*(unfulfilled),afterany:2_*(unfulfilled)" Dependency ;;
            2 | 3 | 4) w="aftercorr:1_*(unfulfilled)"; set -- "$w" Dependency "$w" Dependency "$w" Dependency ;;
            *) set -- "(null)" Priority "(null)" Priority "(null)" Priority ;;
            esac
            index=0
            while [ $# -gt 0 ]; do
                echo "$job|$index|PD|$(name $job)||$me|$1|N/A|$2"; index=$((index + 1)); shift 2
            done
        done
        exit 0
        """,
    )
    assert _states(results)[("train", "queued")] == 2
    assert _launch(results) == 0
    error = capsys.readouterr().err
    # The task, its three shards and the aggregation.
    assert "SLURM will never run 5 tasks (launch failed requeued held)" in error
    cancelled = (fake.folder / "calls.scancel").read_text().split()
    assert sorted(cancelled) == ["1_1", "2_1", "3_1", "4_1", "5_0"]
    assert fake.calls("sbatch") == 10


def test_a_job_that_completes_is_over_unless_it_is_to_run_again(fake: FakeSlurm, results: Path) -> None:
    assert _launch(results) == 0
    over = "2026-01-01T12:00:00"
    fake.answer(
        "squeue",
        f"name=$(sed -n 's/^#SBATCH --job-name=//p' queue/1); u=$(id -u); s='{over}'; "
        'echo "1|0|CG|$name|n1|$u||$s|None"; echo "1|1|CG|$name|n1|$u||NONE|None"; echo "1|2|R|$name|n1|$u||$s|None"; '
        "exit 0",
    )
    assert _states(results)[("train", "running")] == 2
    assert _states(results)[("train", "missing")] == 1


def test_status_says_why_tasks_wait(fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _launch(results) == 0
    (fake.folder / "reason").write_text("JobHeldAdmin")
    assert run_command("status", status, ["grid=tiny", f"results={results}"]) == 0
    assert "waiting: 13 JobHeldAdmin (held by an administrator)\n" in capsys.readouterr().out


def test_waiting_ends_when_nothing_can_ever_run(
    fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (fake.folder / "reason").write_text("InvalidQOS")
    assert _launch(results, "wait=true") == 1
    error = capsys.readouterr().err
    assert "train 0/3 models (3 missing); certify 0/63 images (3 missing); aggregate missing" in error
    assert "stuck: SLURM will never run 13 tasks (InvalidQOS); change cluster.qos" in error


def test_another_user_s_units_are_seen_and_left_alone(
    fake: FakeSlurm, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _launch(results) == 0
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 4242)
    assert _launch(results) == 0
    assert fake.calls("sbatch") == 5
    assert f"--user={me},{me + 4242}" in (fake.folder / "calls.squeue").read_text()
    (fake.folder / "reason").write_text("DependencyNeverSatisfied")
    assert _launch(results) == 0  # not ours to cancel
    assert run_command("cancel", cancel, ["grid=tiny", f"results={results}"]) == 0
    assert fake.calls("scancel") == 0
    assert "note: 13 more jobs belong to" in capsys.readouterr().out


@pytest.mark.parametrize(("after", "dependency"), [("77", "afterok:77"), ("afterany:77", "afterany:77")])
def test_the_first_arrays_wait_for_a_job_of_the_user(
    fake: FakeSlurm, results: Path, after: str, dependency: str
) -> None:
    assert _launch(results, f"cluster.after='{after}'") == 0
    assert fake.option("dependency") == [dependency, *["aftercorr:1"] * 3, "afterany:1:2:3:4"]


def test_a_job_that_slurm_has_forgotten_runs_while_it_gives_signs_of_life(fake: FakeSlurm, results: Path) -> None:
    """As after slurmctld lost its state."""
    assert _launch(results) == 0
    fake.clear()
    store = Store(results)
    unit = TrainUnit(train=read_manifest(store.manifest_path("tiny")).runs[0].train)
    (folder,) = store.launches_dir("tiny").glob("*/train-0")
    log = folder / "1_0_0_log.out"
    log.write_text(f"x INFO begin {unit.name} on n1 gpus []\n")
    assert _states(results)[("train", "running")] == 1
    os.utime(log, (time.time() - 60, time.time() - 60))
    joblog.beat(log)
    assert log.stat().st_mtime > time.time() - 30
    os.utime(log, (time.time() - 100, time.time() - 100))
    assert _states(results)[("train", "failed")] == 1


def test_several_clusters_in_the_environment_are_a_bad_configuration(
    fake: FakeSlurm, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_CLUSTERS", "near,far")
    assert _launch(results) == 2
    assert "SLURM_CLUSTERS=near,far names several clusters" in capsys.readouterr().err
    assert _launch(results, "cluster.clusters=far") == 0


def test_a_unit_gets_the_next_memory_and_time_limit_after_each_failure(fake: FakeSlurm, results: Path) -> None:
    options = ["cluster.train.mem_gb=[1,2,4]", "cluster.train.time_min=[10,20]"]
    memory, limits = [], []
    for failure_class in (None, "host_oom", "host_oom", "timeout", "timeout"):
        if failure_class is not None:
            _fail(
                results,
                TrainUnit(train=read_manifest(Store(results).manifest_path("tiny")).runs[0].train),
                failure_class,
            )
        fake.clear()
        assert _launch(results, *options) == 0
        memory.append(fake.option("mem")[0])
        limits.append(fake.option("time")[0])
    assert memory == ["1024MB", "2048MB", "4096MB", "4096MB", "4096MB"]
    assert limits == ["10", "10", "10", "20", "20"]
    _fail(results, TrainUnit(train=read_manifest(Store(results).manifest_path("tiny")).runs[0].train), "host_oom")
    fake.clear()
    assert _launch(results, *options) == 1  # no value is left


def test_a_waiting_launch_gives_more_memory_and_time_until_the_lists_end(
    fake: FakeSlurm, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The queue empties at each round, and the first model has failed once more."""
    classes: list[FailureClass] = ["host_oom", "timeout", "host_oom", "host_oom"]
    asked = []

    def follow(manifest: Manifest, store: Store, *, poll_s: float) -> Status:
        asked.append((fake.option("mem")[0], fake.option("time")[0]))
        fake.clear()
        _fail(results, TrainUnit(train=manifest.runs[0].train), classes[len(asked) - 1])
        return look(manifest, store)

    monkeypatch.setattr("pipeline.launch.follow", follow)
    assert _launch(results, "wait=true", "cluster.train.mem_gb=[1,2,4]", "cluster.train.time_min=[10,20]") == 1
    assert asked == [("1024MB", "10"), ("2048MB", "10"), ("2048MB", "20"), ("4096MB", "20")]
    error = capsys.readouterr().err
    assert error.count("launching again, with more memory or time for 1 unit\n") == 3
    assert error.count("the grid is not complete, but nothing is running or can run") == 1


def test_a_waiting_launch_does_not_repeat_what_gets_nothing_more(
    fake: FakeSlurm, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another class than those of the lists; and then more memory than SLURM gives."""

    def follow(manifest: Manifest, store: Store, *, poll_s: float) -> Status:
        if fake.scripts:
            fake.clear()
            _fail(results, TrainUnit(train=manifest.runs[0].train), failure_class)
            fake.answer(
                f"sbatch.{fake.calls('sbatch') + 1}", "echo 'sbatch: error: Memory is not available' >&2; exit 1"
            )
        return look(manifest, store)

    failure_class: FailureClass = "unknown"
    monkeypatch.setattr("pipeline.launch.follow", follow)
    assert _launch(results, "wait=true", "cluster.train.mem_gb=[1,2]") == 1
    assert "launching again" not in capsys.readouterr().err
    fake.recover(f"sbatch.{fake.calls('sbatch') + 1}")
    failure_class = "host_oom"
    assert _launch(results, "wait=true", "cluster.train.mem_gb=[1,2]") == 1
    error = capsys.readouterr().err
    assert error.count("launching again") == 1
    assert "SLURM refuses: train: Memory is not available" in error


def test_a_cancellation_that_has_no_effect_is_an_error(
    fake: FakeSlurm, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _launch(results) == 0
    (fake.bin / "scancel").write_text("#!/bin/sh\nexit 0\n")
    monkeypatch.setattr("pipeline.cancel._PATIENCE_S", 0.0)
    assert run_command("cancel", cancel, ["grid=tiny", f"results={results}"]) == 1
    assert "13 of 13 jobs are still in the queue" in capsys.readouterr().err


def test_a_cancellation_names_the_grids_that_share_its_units(
    fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _launch(results) == 0
    assert _launch(results, "grid.name=other", "certify.n=100") == 0
    assert run_command("cancel", cancel, ["grid=tiny", f"results={results}"]) == 0
    assert "note: grid other needs 3 of the cancelled units too; launch it again" in capsys.readouterr().out


def test_each_launch_is_asked_about_on_its_own_cluster(fake: FakeSlurm, results: Path) -> None:
    """As at a site of several: squeue knows only the jobs of the cluster that it is told."""
    fake.answer("squeue", '[ "$SLURM_CLUSTERS" = far ] || exit 0')
    assert _launch(results, "cluster.clusters=far") == 0
    assert "SLURM_CLUSTERS=far" in (fake.folder / "environment").read_text()
    assert _states(results) == {("train", "queued"): 3, ("certify", "queued"): 9, ("aggregate", "queued"): 1}
    assert _launch(results) == 0
    assert fake.calls("sbatch") == 5
    assert run_command("cancel", cancel, ["grid=tiny", f"results={results}"]) == 0
    assert fake.scripts == []


def test_a_running_launch_s_earlier_aggregation_is_replaced(
    fake: FakeSlurm, undisturbed_results: Path, results: Path
) -> None:
    shutil.copytree(undisturbed_results, results)
    store = Store(results)
    run = read_manifest(store.manifest_path("tiny")).runs[0]
    store.records_path("tiny").unlink()
    assert _launch(results) == 0
    assert len(fake.scripts) == 1
    shutil.rmtree(store.shards_dir(run.place))
    assert _launch(results) == 0
    assert fake.option("dependency") == [None, "afterany:2"]


def test_a_dry_run_shows_the_scripts_and_touches_nothing(
    fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _launch(results, "dry_run=true", "cluster.train.gpus=4") == 0
    text = capsys.readouterr().out
    assert "--- sbatch, train" in text
    assert "#SBATCH --gpus-per-node=4" in text
    assert fake.calls("sbatch") == 0
    assert not results.exists()


def test_slurm_where_there_is_none_is_a_bad_configuration(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert _launch(results) == 2
    assert "no sbatch" in capsys.readouterr().err
    assert not results.exists()


@pytest.mark.parametrize("name", ["a:b", "50%j"])
def test_a_results_folder_that_jobs_could_not_use_is_a_bad_configuration(
    fake: FakeSlurm, results: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _launch(results / name) == 2
    assert f"{name} has a ':' or a '%'" in capsys.readouterr().err
    assert not results.exists()


@pytest.mark.parametrize("is_configured", [True, False])
def test_auto_is_slurm_where_its_sbatch_knows_a_cluster(
    fake: FakeSlurm,
    undisturbed_results: Path,
    results: Path,
    is_configured: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(undisturbed_results, results)
    before = finished_files(results)
    if not is_configured:
        (fake.bin / "scontrol").write_text("#!/bin/sh\necho 'Could not establish a configuration source' >&2\nexit 1\n")
    assert run_command("launch", launch, tiny(results, "cluster=auto")) == 0
    assert fake.calls("squeue") == int(is_configured)
    assert finished_files(results) == before


def test_the_job_that_launches_leaves_no_trace_in_the_jobs(
    fake: FakeSlurm, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")
    monkeypatch.setenv("SBATCH_ACCOUNT", "lab")
    monkeypatch.setenv("SLURM_CONF", "/etc/elsewhere.conf")
    assert _launch(results) == 0
    environment = (fake.folder / "environment").read_text()
    assert "SLURM_JOB_ID" not in environment
    assert "SBATCH_TIMELIMIT" not in environment
    assert "SBATCH_ACCOUNT=lab" in environment  # what to charge is the user's choice
    assert "SLURM_CONF=/etc/elsewhere.conf" in environment
    assert os.environ["SLURM_JOB_ID"] == "77"


def test_jobs_run_a_copy_of_the_code_that_was_submitted(fake: FakeSlurm, results: Path) -> None:
    assert _launch(results) == 0
    (copy,) = Store(results).code_copies()
    assert f"export PYTHONPATH={copy}$" in fake.scripts[0]
    program = "import jobs, pipeline.slurm.task, jobs.files.code as p; print(jobs.__file__, p.git_commit())"
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True, check=True
    )
    module, commit = done.stdout.split()
    assert module == str(copy / "jobs" / "__init__.py")
    assert commit == (copy / "COMMIT").read_text().strip()
    fake.clear()
    assert _launch(results) == 0
    assert Store(results).code_copies() == [copy]


def test_the_commands_that_are_printed_name_any_results_folder(
    fake: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "run (1) of 'a', #2"
    assert _launch(results) == 0
    (follow,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("follow: ")]
    assert f"export PYTHONPATH={shlex.quote(str(Store(results).code_copies()[0]))}$" in fake.scripts[0]
    _, _, _, _, *arguments = shlex.split(follow)
    assert run_command("status", status, [*arguments, "watch=false"]) == 0
    assert f"3 models, results in {results}" in capsys.readouterr().out


def test_cancel_names_only_its_own_arrays(fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _launch(results) == 0
    assert _launch(results, "grid.name=other", "certify.n=100") == 0
    assert run_command("cancel", cancel, ["grid=tiny", f"results={results}"]) == 0
    assert "grid tiny: cancelled 13 jobs, 0 of them running" in capsys.readouterr().out
    assert len(fake.scripts) == 2
    activity = slurm_activity(Store(results), "other", read_queue())
    assert all("n100" in name or name == "aggregate" for name in activity.in_progress)


def test_attacks_are_submitted_as_certifications_are(
    fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack = ["attack=digits", "attack.epsilon=0.5"]
    assert _launch(results, *attack) == 0
    assert fake.option("dependency") == [None, *["aftercorr:1"] * 6, "afterany:1:2:3:4:5:6:7"]
    queued = {("train", "queued"): 3, ("certify", "queued"): 9, ("attack", "queued"): 9, ("aggregate", "queued"): 1}
    assert _states(results) == queued
    assert _launch(results, *attack) == 0
    assert "nothing to submit: the rest is in progress" in capsys.readouterr().out
    unit = look(read_manifest(Store(results).manifest_path("tiny")), Store(results)).of("attack")[0].shards[0].unit
    for _ in range(2):
        _fail(results, unit, "bug")
    subprocess.run(["scancel", *map(str, range(1, 9))], check=True)
    assert _launch(results, *attack) == 1
    assert f"failed   {unit.name} (bug, attempt 2, node n7)" in capsys.readouterr().err
    assert _states(results)["attack", "failed"] == 1
    assert _states(results)["attack", "queued"] == 8
    assert _states(results)["aggregate", "queued"] == 0


@pytest.mark.parametrize("kind", ["local", "debug"])
def test_what_slurm_has_is_not_done_here_too(
    fake: FakeSlurm, results: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _launch(results) == 0
    arguments = tiny(results, f"cluster={kind}")
    assert run_command("launch", launch, arguments) == 1
    error = capsys.readouterr().err
    assert "SLURM has 12 units of grid tiny queued or running; nothing was started here" in error
    assert f"python -m pipeline.cancel grid=tiny results={results}" in error
    fake.answer("squeue", "exit 1")
    assert run_command("launch", launch, arguments) == 1
    assert "squeue failed with exit code 1" in capsys.readouterr().err
    assert finished_files(results) == {}


def test_what_slurm_has_of_other_grids_is_in_nobody_s_way(
    fake: FakeSlurm, undisturbed_results: Path, results: Path
) -> None:
    shutil.copytree(undisturbed_results, results)
    assert _launch(results, "grid.name=other", "certify.n=100") == 0
    assert run_command("launch", launch, tiny(results, "cluster=local")) == 0


def test_where_slurm_cannot_be_asked_a_launch_here_says_so(
    fake: FakeSlurm,
    undisturbed_results: Path,
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(undisturbed_results, results)
    assert _launch(results, "grid.name=other", "certify.n=100") == 0
    monkeypatch.setenv("PATH", "/nowhere")
    assert run_command("launch", launch, tiny(results, "cluster=local")) == 0
    assert "note: SLURM is not available here" in capsys.readouterr().err
