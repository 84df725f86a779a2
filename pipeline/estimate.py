"""Device hours spent on a grid and left to do, by measured times or at the speed of the published logs."""

import bisect
import contextlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import Literal, NamedTuple

from jobs.errors import RecordError
from jobs.files.manifest import read_manifest
from jobs.files.store import Store
from jobs.plugins.isolated import ask
from jobs.specs.runs import Manifest, Task
from jobs.specs.train import TrainSpec, train_fields
from jobs.specs.units import ShardUnit, Stage, TrainUnit
from jobs.wording import say, some
from pipeline.plan import Plan
from pipeline.request.cost import (
    FORWARD_PER_S,
    MULTIPLY_ADDS_PER_S,
    drawn_per_s,
    images_cost,
    train_cost,
    unit_cost,
)
from pipeline.state.files import Observation, observe
from pipeline.state.progress import times_in

Device = Literal["CPU", "GPU"]
_SAMPLES = 12  # files read for each kind of work, spread over what is finished


class Kind(NamedTuple):
    """Work whose time is proportional to its cost in forward passes, on one device."""

    stage: Stage
    architecture: str
    settings: tuple[object, ...]

    @classmethod
    def of(cls, train: TrainSpec, task: Task | None = None) -> "Kind":
        """The kind of a training, or of a task on the trained model."""
        # Work that stops early takes less than its cost.
        names = ("precision", "noise", "mode", "stop_wrong", "curtail")
        stage: Stage = "train" if task is None else task.stage
        settings = (train.dataset, *(getattr(task or train, name, None) for name in names))
        return cls(stage, train.architecture, settings)


class Estimate(NamedTuple):
    """Hours of one device (a GPU, or a CPU process), by stage; None where nothing was measured."""

    spent_h: Mapping[Stage, float | None]
    left_h: Mapping[Stage, float | None]


def estimate(manifest: Manifest, observed: Observation, store: Store) -> Estimate:
    """Hours by the times in a few finished files of each kind. Changes nothing."""
    done, left = defaultdict[Kind, float](float), defaultdict[Kind, float](float)
    for key, spec in manifest.models.items():
        (done if key in observed.trained else left)[Kind.of(spec)] += train_cost(spec)
    for run in manifest.runs:
        kind, num_missing = Kind.of(run.train, run.task), len(observed.missing(run))
        left[kind] += images_cost(run, num_missing)
        done[kind] += images_cost(run, len(run.indices) - num_missing)
    speeds = measured(manifest, observed, store)
    return Estimate(spent_h=_hours(done, speeds), left_h=_hours(left, speeds))


def _hours(costs: Mapping[Kind, float], speeds: Mapping[Kind, float]) -> dict[Stage, float | None]:
    hours: dict[Stage, float | None] = {}
    for kind, cost in costs.items():
        before, own = hours.get(kind.stage, 0.0), 0.0 if not cost else speeds.get(kind)
        hours[kind.stage] = None if before is None or own is None else before + cost * own / 3600
    return hours


def measured(
    manifest: Manifest, observed: Observation, store: Store, devices: Mapping[Stage, Device] | None = None
) -> dict[Kind, float]:
    """Seconds of a forward pass in a grid's finished work, by kind; only work of the given devices counts, if any."""
    units: dict[Kind, list[TrainUnit | ShardUnit]] = defaultdict(list)
    for key, spec in manifest.models.items():
        units[Kind.of(spec)] += [TrainUnit(train=spec)] if key in observed.trained else []
    for run in manifest.runs:
        shards = [ShardUnit(run=run, indices=shard) for shard in observed.finished(run)]
        units[Kind.of(run.train, run.task)] += shards
    speeds = {}
    for kind, own in units.items():
        seconds = cost = 0.0
        for unit in own[:: max(1, len(own) // _SAMPLES)][:_SAMPLES]:
            elapsed_s = _elapsed_s(unit, store, None if devices is None else devices[kind.stage])
            if elapsed_s is not None:
                seconds, cost = seconds + elapsed_s, cost + unit_cost(unit)
        if cost:
            speeds[kind] = seconds / cost
    return speeds


def _elapsed_s(unit: TrainUnit | ShardUnit, store: Store, device: Device | None) -> float | None:
    """Seconds of one device; None if another kind of device did it, or the file cannot be read (see verify)."""
    path = store.epochs_path(unit.train.key)
    if unit.run is not None:
        path = store.shard_path(unit.run.place, unit.indices)
    try:
        seconds, name = times_in(path)
    except (OSError, ValueError, KeyError):  # pyarrow's errors are ValueErrors
        return None
    if device is not None and (name is None or (name == "cpu") != (device == "CPU")):
        return None
    if not all(0 <= second < math.inf for second in seconds):
        return None
    return float(sum(seconds)) * unit.num_processes  # all at the same time


Source = Literal["measured", "published", "timed", "counted"]
"""Finished work; a GPU of the published logs; timing on this machine's CPU; multiply-adds at such a GPU's speed."""


class Forecast(NamedTuple):
    """Hours of the units of one kind, and where the number comes from; a source of None: unknown."""

    kind: Kind
    source: Source | None
    hours: float = 0.0


def forecast(
    plan: Plan,
    manifest: Manifest,
    observed: Observation,
    store: Store,
    *,
    devices: Mapping[Stage, Device],
    certify_cpus: int | None = None,
    threads: int = 1,
    plugins: Mapping[str, bytes] | None = None,
) -> Iterator[Forecast]:
    """Hours that a plan will take on given devices, estimated from finished work of this grid and of others.

    ``certify_cpus`` is the number of CPUs that draw noise for one certification; None means enough. Networks of which
    nothing was measured or published are timed on the CPU with ``threads``, unless ``plugins``, the files, is None.
    """
    units: dict[Kind, list[TrainUnit | ShardUnit]] = defaultdict(list)
    for unit in plan.units:
        if unit.train is not None and unit_cost(unit):
            units[Kind.of(unit.train, unit.run.task if unit.run else None)].append(unit)
    speeds = measured(manifest, observed, store, devices)
    for grid in store.grid_names():
        unknown = units.keys() - speeds.keys()
        if not unknown:
            break
        with contextlib.suppress(RecordError):
            other = read_manifest(store.manifest_path(grid))
            kinds = chain(map(Kind.of, other.models.values()), (Kind.of(run.train, run.task) for run in other.runs))
            if not unknown.isdisjoint(kinds):  # observing a grid takes long
                speeds = measured(other, observe(other, store), store, devices) | speeds
    new = {
        kind: _typical(own)
        for kind, own in units.items()
        if kind not in speeds and (devices[kind.stage] == "CPU" or kind.architecture not in FORWARD_PER_S)
    }
    tried = {} if plugins is None or not new else _tried(new, devices, threads, plugins)
    for kind, own in units.items():
        cost, on_gpu = sum(map(unit_cost, own)), devices[kind.stage] == "GPU"
        if kind in speeds:
            yield Forecast(kind, "measured", cost * speeds[kind] / 3600)
        elif kind in tried:
            hours = _gpu_hours(own, tried[kind], certify_cpus) if on_gpu else cost * tried[kind] / 3600
            yield Forecast(kind, "counted" if on_gpu else "timed", hours)
        elif kind in new:
            yield Forecast(kind, None)
        if kind not in speeds and kind.architecture in FORWARD_PER_S:
            forward_s = 1 / FORWARD_PER_S[kind.architecture]
            yield Forecast(kind, "published", _gpu_hours(own, forward_s, certify_cpus))


def _typical(units: Sequence[TrainUnit | ShardUnit]) -> TrainUnit | ShardUnit:
    """The unit at half of what all cost together, the cheapest first."""
    ordered = sorted(units, key=unit_cost)
    costs = [*accumulate(map(unit_cost, ordered))]
    return ordered[bisect.bisect_left(costs, costs[-1] / 2)]


def _gpu_hours(units: Iterable[TrainUnit | ShardUnit], forward_s: float, certify_cpus: int | None) -> float:
    def noisy_s(unit: TrainUnit | ShardUnit) -> float:
        """Seconds of a forward pass of one image, or of drawing its noise where this takes longer."""
        if unit.run is None or unit.stage != "certify" or certify_cpus is None:
            return forward_s
        return max(forward_s, 1 / (certify_cpus * drawn_per_s(unit.run)))

    return sum(unit_cost(unit) * noisy_s(unit) for unit in units) / 3600


def _tried(
    units: Mapping[Kind, TrainUnit | ShardUnit],
    devices: Mapping[Stage, Device],
    threads: int,
    plugins: Mapping[str, bytes],
) -> dict[Kind, float]:
    """Seconds of a forward pass, for networks that can be timed."""
    say(f"estimating the speed of {some(dict.fromkeys(kind.architecture for kind in units))}, not measured yet")
    is_gpu = {kind: devices[kind.stage] == "GPU" for kind in units}
    question = [
        [train_fields(unit.train), unit.run.task.precision if unit.run else None, None if is_gpu[kind] else threads]
        for kind, unit in units.items()
    ]
    speeds = {}
    for (kind, unit), answer in zip(units.items(), ask("jobs.preflight.speed", plugins, question), strict=True):
        if answer is not None:
            images = 1.0 if unit.run else unit.train.info.num_images["train"] * unit.train.epochs
            cost = 1.0 if unit.run else unit_cost(unit)
            speeds[kind] = answer / MULTIPLY_ADDS_PER_S if is_gpu[kind] else answer * images / cost
    return speeds
