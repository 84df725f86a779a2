"""SLURM's reasons why a job waits or is refused: what they mean, and which option to change."""

import functools
import re
from typing import Literal

from pipeline.request.config import StageConfig

Kind = Literal["waits", "held", "down", "lost", "refused"]
"""waits: for its turn; held: until somebody releases it; down: until nodes or the partition return; lost: never runs,
but a new copy can; refused: neither it nor a copy with the same options ever runs."""

_KINDS: tuple[tuple[Kind, str], ...] = (
    ("lost", r"dependency.?never.?satisfied|launch.failed.requeued.held|job.?hold.?max.?requeue"),
    (
        "refused",
        r"max\w*per(job|node|cpu|limit)|qosmin\w+|qostimelimit|invalid(qos|account)|(qos|account)notallowed"
        r"|partition(node|time)limit|partitionconfig|bad.?constraints|reservationdeleted|maxmemperlimit",
    ),
    ("held", r"jobheld|held.?state|requeued.?in.?held"),
    ("down", r"nodedown|reqnodenotavail|down,.?drained|drained|partition(down|inactive)|reservednodes?"),
)

# The first pattern that matches a text gives the advice; {} is the stage.
_ADVICE: tuple[tuple[str, str], ...] = (
    (r"--mem, --mem-per-cpu, and --mem-per-gpu are mutually", "set cluster.{}.mem_gb=null"),
    (r"\w*(billing|cpu|gres|tres|node)\w*min(ute)?s?(?!\w*perjob)|grpwall", "the budget of cluster.account is used up"),
    (
        r"wall|time.?limit|minutes?perjob|requested time",
        "lower cluster.{}.time_min, or choose another qos or partition",
    ),
    (r"gres|gpu", "change cluster.{}.gpus or cluster.{}.gres"),
    (r"mem", "change cluster.{}.mem_gb, or choose another qos or partition"),
    (r"cpu|processors", "change cluster.{}.cpus, or choose another qos or partition"),
    (r"qos specification|invalidqos|qosnotallowed|invalid qos", "change cluster.qos or cluster.{}.qos"),
    (r"account", "change cluster.account or cluster.{}.account"),
    (r"reservation", "change cluster.extra.reservation"),
    (r"constraint|feature", "change cluster.constraint or cluster.{}.constraint"),
    (r"unrecognized option|doesn't allow an argument|requires an argument", "change cluster.extra"),
    (r"partitionconfig|node.?(limit|configuration)|partition|perjob|pernode", "change the resources of cluster.{}"),
)


@functools.cache
def kind_of(reason: str) -> Kind:
    """What SLURM's reason means for a waiting job."""
    return next((kind for kind, pattern in _KINDS if re.search(pattern, reason, re.IGNORECASE)), "waits")


def advice(text: str, stage: str, asked: StageConfig | None = None) -> str:
    """Which option to change after a reason of squeue or an error of sbatch; empty if unknown.

    Where the option has a value in ``asked``, the advice names it.
    """
    found = next((hint for pattern, hint in _ADVICE if re.search(pattern, text, re.IGNORECASE)), "")
    hint = found.replace("{}", stage)
    for name in ("time_min", "mem_gb", "cpus", "gpus"):
        option = f"cluster.{stage}.{name}"
        if asked is not None and f"{option}=" not in hint:
            hint = re.sub(rf"{re.escape(option)}\b", f"{option}={getattr(asked, name)}", hint)
    return hint


def explained(reason: str) -> str:
    """A reason of squeue and its meaning, for people."""
    meanings = {"held": "held: scontrol release JOB", "down": "nodes or partition not available"}
    meaning = meanings.get(kind_of(reason))
    if re.search("admin", reason, re.IGNORECASE):
        meaning = "held by an administrator"
    if reason == "None":  # squeue's word for a job that the scheduler has not looked at
        return "not scheduled yet"
    return f"{reason} ({meaning})" if meaning else reason
