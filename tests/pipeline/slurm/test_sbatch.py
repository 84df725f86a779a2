"""What sbatch is asked for, as the script says."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from jobs.errors import ConfigError
from jobs.specs.units import Stage
from pipeline.request.config import parse_launch
from pipeline.slurm.sbatch import TEMPORARY, sbatch_parameters
from pipeline.slurm.submit import script
from pipeline.state.ledger import ArrayName
from tests.grids import compose_tiny
from tests.pipeline.fake_slurm import FakeSlurm


def _script(stage: Stage, *options: str) -> str:
    config = parse_launch(compose_tiny(Path("results"), "cluster=slurm", *options)).slurm
    assert config is not None
    name = ArrayName(grid="tiny", launch="20260101-120000-abcdef", array=f"{stage}-0")
    exclude = config.option(stage, "exclude")
    parameters = sbatch_parameters(
        config, name, Path("code"), Path("folder"), exclude=exclude, memory_gb=1.0, limit_min=5
    )
    return script(Path("folder"), parameters, 1, config.option(stage, "python"))


def test_false_leaves_an_option_out_and_true_is_a_bare_one(fake: FakeSlurm) -> None:
    text = _script("train", "+cluster.extra.exclusive=true", "+cluster.extra.requeue=false", "+cluster.extra.nice=5")
    assert "#SBATCH --exclusive\n" in text
    assert "#SBATCH --nice=5\n" in text
    assert "requeue" not in text


@pytest.mark.parametrize(
    "option", ["cluster.gres='gpu:a100:1'", "cluster.train.gres=gpu:1", "+cluster.extra.gpus-per-task=1"]
)
def test_gpus_are_asked_for_once(fake: FakeSlurm, option: str) -> None:
    assert "--gpus-per-node" not in _script("train", option)
    assert "--gpus-per-node=1" in _script("train", "cluster.gres=scratch:1")


def test_a_stage_can_say_none(fake: FakeSlurm) -> None:
    options = ["cluster.gres='gpu:1'", "cluster.partition=gpu", "cluster.aggregate.gres=none"]
    assert "gres" not in _script("aggregate", *options)
    assert "--partition=gpu" in _script("aggregate", *options)
    assert "partition" not in _script("aggregate", *options, "cluster.aggregate.partition=none")


def test_each_stage_may_have_its_own_setup_python_nodes_and_options(fake: FakeSlurm) -> None:
    options = [
        "cluster.setup=['module load cuda']",
        "cluster.python=python3.11",
        "cluster.exclude=n1",
        "+cluster.extra.nice=5",
        "cluster.certify.setup=['module load cuda/12']",
        "cluster.certify.python='apptainer exec image.sif python'",
        "cluster.certify.exclude=n2",
        "+cluster.certify.extra.nice=7",
        "+cluster.certify.extra.mail-type=FAIL",
    ]
    train, certify = _script("train", *options), _script("certify", *options)
    for text in ("\nmodule load cuda\n", " python3.11 -u -m ", "--exclude=n1\n", "--nice=5\n"):
        assert text in train
        assert text not in certify
    for text in ("\nmodule load cuda/12\n", " apptainer exec image.sif python -u -m ", "--exclude=n2\n", "--nice=7\n"):
        assert text in certify
        assert text not in train
    assert "--mail-type=FAIL" in certify
    assert "mail-type" not in train


def test_options_that_have_a_name_here_are_not_taken_as_others() -> None:
    options = ["+cluster.extra.clusters=far", "+cluster.train.extra.time=5", "cluster.clusters='a,b'"]
    with pytest.raises(ConfigError) as raised:
        _script("train", *options[:2])
    assert raised.value.problems == [
        "cluster.extra.clusters: write cluster.clusters instead",
        "cluster.train.extra.time: write cluster.STAGE.time_min instead",
    ]
    with pytest.raises(ConfigError, match="clusters"):
        _script("train", options[2])


def test_one_mail_per_grid(fake: FakeSlurm) -> None:
    assert "#SBATCH --mail-user=me@lab.org\n" in _script("aggregate", "cluster.mail=me@lab.org")
    assert "mail" not in _script("train", "cluster.mail=me@lab.org")


@pytest.mark.parametrize("killed", [None, signal.SIGTERM, signal.SIGKILL])
def test_temporary_files_go_with_their_job_or_with_the_next(tmp_path: Path, killed: signal.Signals | None) -> None:
    script_text = "\n".join([*TEMPORARY, "touch $TMPDIR/file; sleep ${1-0} & wait"])
    environment = {**os.environ, "TMPDIR": str(tmp_path)}

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["bash", "-c", script_text, "job", *arguments], env=environment)

    job = start("60" if killed else "0")
    while killed and not list(tmp_path.glob("smoothadv-*/file")):
        time.sleep(0.01)
    if killed:
        start().wait()
        assert list(tmp_path.glob("smoothadv-*/file"))  # another job leaves those of one that runs alone
        job.send_signal(killed)
    job.wait()
    assert bool(list(tmp_path.iterdir())) == (killed == signal.SIGKILL)
    start().wait()
    assert list(tmp_path.iterdir()) == []
