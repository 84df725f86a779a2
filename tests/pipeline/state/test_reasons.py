"""What SLURM's reasons mean, by its documentation."""

import pytest

from pipeline.state.reasons import Kind, advice, explained, kind_of

KINDS: dict[Kind, list[str]] = {
    "waits": [
        "Priority",
        "Resources",
        "Dependency",
        "None",
        "BeginTime",
        "JobArrayTaskLimit",
        "AssocMaxJobsLimit",
        "AssocGrpCpuLimit",
        "AssocMaxSubmitJobLimit",
        "QOSMaxJobsPerUserLimit",
        "QOSMaxCpuPerUserLimit",
        "QOSMaxSubmitJobPerUserLimit",
        "QOSGrpGRES",
        "Licenses",
    ],
    "refused": [
        "AssocMaxCpuPerJobLimit",
        "AssocMaxMemPerJob",
        "AssocMaxNodePerJobLimit",
        "AssocMaxWallDurationPerJobLimit",
        "AssocMaxCPUMinutesPerJobLimit",
        "AssocMaxGRESPerJob",
        "QOSMaxCpuPerJobLimit",
        "QOSMaxWallDurationPerJobLimit",
        "QOSMaxMemoryPerJob",
        "QOSMaxNodePerJobLimit",
        "QOSMinCpuNotSatisfied",
        "QOSMinGRES",
        "InvalidQOS",
        "InvalidAccount",
        "QOSNotAllowed",
        "AccountNotAllowed",
        "PartitionTimeLimit",
        "PartitionNodeLimit",
        "PartitionConfig",
        "BadConstraints",
        "MaxMemPerLimit",
        "ReservationDeleted",
    ],
    "lost": ["DependencyNeverSatisfied", "launch failed requeued held", "JobHoldMaxRequeue"],
    "held": ["JobHeldUser", "JobHeldAdmin", "job requeued in held state"],
    "down": [
        "ReqNodeNotAvail, UnavailableNodes:n1",
        "PartitionDown",
        "PartitionInactive",
        "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
    ],
}


@pytest.mark.parametrize(("kind", "reason"), [(kind, reason) for kind, reasons in KINDS.items() for reason in reasons])
def test_a_reason_tells_whether_a_job_ever_runs(kind: Kind, reason: str) -> None:
    assert kind_of(reason) == kind
    assert kind != "refused" or advice(reason, "certify")


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("fatal: --mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive.", "cluster.train.mem_gb=null"),
        ("QOSMaxWallDurationPerJobLimit; Job violates accounting/QOS policy", "cluster.train.time_min"),
        ("AssocGrpBillingMinutes; Job violates accounting/QOS policy", "budget of cluster.account"),
        ("AssocMaxCPUMinutesPerJobLimit", "cluster.train.time_min"),
        ("QOSMaxMemoryPerJob", "cluster.train.mem_gb"),
        ("Requested node configuration is not available", "cluster.train"),
        ("InvalidQOS", "cluster.qos"),
        ("Invalid account or account/partition combination specified", "cluster.account"),
        ("unrecognized option '--foo=bar'", "cluster.extra"),
    ],
)
def test_the_option_to_change_is_named(text: str, option: str) -> None:
    assert option in advice(text, "train")


def test_people_are_told_what_holds_a_job() -> None:
    assert explained("Priority") == "Priority"
    assert explained("JobHeldAdmin") == "JobHeldAdmin (held by an administrator)"
    assert "scontrol release" in explained("JobHeldUser")
    assert "not available" in explained("PartitionDown")
