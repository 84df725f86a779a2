"""What is made of sbatch's answers."""

import subprocess

import pytest

from pipeline.slurm.submit import SubmissionRefusedError, SubmitLimitError, job_number
from pipeline.state.commands import SchedulerError

POLICY = (
    "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)


def _answer(stdout: str = "", stderr: str = "", code: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(["sbatch"], code, stdout, stderr)


@pytest.mark.parametrize(
    ("stdout", "number"),
    [
        ("Submitted batch job 17\n", "17"),
        ("Submitted batch job 17 on cluster far\n", "17"),
        ("17\n", "17"),
        ("17;far\n", "17"),
        ("Welcome! 3 jobs of yours run; see job 4711.\nYou used 12 hours\nSubmitted batch job 17\n", "17"),
        ("Submitted batch job 3 (dry)\nSubmitted batch job 17\n", "17"),
    ],
)
def test_the_job_number_is_read_from_sbatch_s_own_line(stdout: str, number: str) -> None:
    assert job_number(_answer(stdout, "sbatch: note: priority lowered\n", 0)) == number


@pytest.mark.parametrize(
    "stderr",
    [
        "sbatch: fatal: --mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive.",
        "sbatch: unrecognized option '--foo=bar'\nTry \"sbatch --help\" for more information",
        "sbatch: option '--requeue' doesn't allow an argument",
        f"sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: {POLICY}",
        f"sbatch: error: AssocGrpBillingMinutes\nsbatch: error: {POLICY}",
        f"sbatch: error: {POLICY}",
        "this cluster takes jobs from 8 to 18 only",
    ],
)
def test_a_refusal_is_told_in_its_own_words(stderr: str) -> None:
    with pytest.raises(SubmissionRefusedError) as raised:
        job_number(_answer(stderr=stderr))
    said = str(raised.value)
    assert said
    assert not said.startswith("sbatch:")
    assert said.split("; ")[0] in stderr


@pytest.mark.parametrize(
    "word", ["QOSMaxSubmitJobPerUserLimit", "AssocMaxSubmitJobLimit", "AssocGrpSubmitJobsLimit", "MaxJobCount"]
)
def test_a_full_queue_is_told_by_its_own_words_only(word: str) -> None:
    with pytest.raises(SubmitLimitError, match=word):
        job_number(_answer(stderr=f"sbatch: error: {word}\nsbatch: error: {POLICY}"))


@pytest.mark.parametrize(
    ("stdout", "stderr", "code"),
    [
        ("", "", 1),
        ("", "", -9),
        ("", "", 124),
        ("", "sbatch: error: Unable to contact slurm controller (connect failure)", 1),
        ("", "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", 1),
        ("Job 12 looks fine\n", "", 0),
        ("Submitted batch job 17\n", "wrapper: cannot write the log", 1),  # it may be queued
    ],
)
def test_anything_else_leaves_it_open_whether_the_job_is_queued(stdout: str, stderr: str, code: int) -> None:
    with pytest.raises(SchedulerError, match="sbatch did not answer"):
        job_number(_answer(stdout, stderr, code))
