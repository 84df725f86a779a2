"""python -m benchmarks.gpu --minutes 10 --out DIR: measures a GPU within a time limit.

Runs, in this order, the tests that need a GPU, certification of ResNet-110
and ResNet-50 over batch sizes, precisions and compile modes, training steps,
several trainings at once on one GPU, and a real training with its
certification. Each is a separate process with a share of the time. Unused time
goes to the next one; a process that exceeds its share is ended, and its output
is kept. Writes DIR/gpu.md after each part: Markdown with date and hardware,
for docs/benchmarks.md. Needs no network. `make gpu-wheels` collects packages
that a machine with torch may lack.

To try it without a GPU: --device cpu --small. Exit code 1 if a part failed.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch  # noqa: F401  for the hardware in the heading

from benchmarks.machine import machine

_TEXT_LINES = 12  # of output that is no table


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing to find out.

    Attributes:
        title: Heads its section.
        arguments: Of Python, after the interpreter.
        share: Of the whole time.
    """

    title: str
    arguments: Sequence[str]
    share: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a part: exit code (None: it reached its time limit), seconds, output."""

    part: Part
    exit_code: int | None
    seconds: float
    output: str


def main(arguments: Sequence[str]) -> int:
    """Run the parts; returns the exit code."""
    options = _options(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    deadline, left, outcomes = time.monotonic() + 60 * options.minutes, 1.0, list[Outcome]()
    for part in parts(options.device, small=options.small, results=options.out / "results"):
        seconds = max(0.0, deadline - time.monotonic()) * part.share / left
        left -= part.share
        print(f"{part.title}: at most {seconds:.0f} s", flush=True)
        outcomes.append(_run(part, seconds))
        (options.out / "gpu.md").write_text(report(outcomes), encoding="utf-8")
        print(f"  {_verdict(outcomes[-1])}", flush=True)
    print(options.out / "gpu.md")
    return int(any(outcome.exit_code for outcome in outcomes))


def parts(device: str, *, small: bool, results: Path) -> list[Part]:
    """What to find out, in order; shares add up to 1.

    Args:
        device: cpu or cuda.
        small: As little of it as shows that it runs.
        results: Folder for the real training.
    """
    on = ["--device", device, *(["--threads", "1"] if small else [])]
    little = ["--n", "100", "--images", "1", "--rounds", "1", "--batch", "100"] if small else []
    sweep = ["-m", "benchmarks.sweep", *on, "--layout", "NHWC", "--precision", "bfloat16"]
    sweep += [*([] if small else ["float16", "tf32"]), "--compile"]
    sweep += ["no"] if small else ["default", "reduce-overhead", "no"]
    certify = ["-m", "benchmarks.certify", *on, "--noise", "exact_grid", "--noise-cost", "--precision", "bfloat16"]
    certify += ["--ratio", "0"]
    train = ["-m", "benchmarks.train", *on, "--precision", "bfloat16", "--ratio", "0", "--rounds"]
    train += ["1", "--batch", "4"] if small else ["10", "--batch", "256", "--compile", "reduce-overhead"]
    first, second = ("cifar_resnet20", "cifar_resnet20") if small else ("cifar_resnet110", "resnet50")
    other = [] if small else ["--dataset", "imagenet"]
    fast = little or ["--n", "100000", "--batch", "2000", "--compile"]
    runs = ["-m", "benchmarks.runs_per_gpu", *on, "--runs", "1", "2"]
    runs += ["--steps", "1", "--batch", "8"] if small else ["4", "8", "--steps", "40"]
    table = [
        (0.12, "Tests that need a GPU", ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu"]),
        (0.25, f"Certification of {first}: settings", [*sweep, "--model", first, *little]),
        (0.08, f"Certification of {first}: against the plain loop", [*certify, "--model", first, *fast]),
        (
            0.18,
            f"Certification of {second}: settings",
            [*sweep, "--model", second, *other, *(little or ["--batch", "100", "400", "1000"])],
        ),
        (0.08, "Training step, m = 2, T = 2", [*train, "--model", first]),
        (0.1, "Training step, m = 8, T = 10", [*train, "--model", first, "--m", "8", "--T", "10"]),
        (0.09, "Trainings at once on one GPU", runs),
        (0.1, "A training, certified", _real_training(device, results, small=small)),
    ]
    return [Part(title=title, arguments=arguments, share=share) for share, title, arguments in table]


def _real_training(device: str, results: Path, *, small: bool) -> list[str]:
    """A launch of one SmoothAdv model on CIFAR-10 where it lies, else on the digits."""
    folder = Path(os.environ.get("CIFAR10_DIR", "data/cifar10"))
    block = "method: smoothadv, attack: pgd, sigma: 0.25, epsilon: 0.5, m_train: 2, num_steps: 2"
    if folder.exists() and not small:
        grid = ["grid=cifar_quick", "train.epochs=2", "train.precision=bfloat16", "certify.n=1000"]
    else:
        grid = ["grid=digits", "model=cifar_resnet20", f"train.epochs={1 if small else 20}", "certify.n=500"]
        grid += ["certify.indices.step=50", "certify.noise=exact_grid"]
    return [
        *("-m", "pipeline.launch", *grid, "grid.name=gpu", f"grid.blocks=[{{{block}}}]", "grid.exclude=[]"),
        *(f"results={results}", "cluster=local", f"cluster.device={device}", "cluster.num_shards=1"),
    ]


def report(outcomes: Sequence[Outcome]) -> str:
    """Markdown: the hardware, and a section for each part."""
    return "\n\n".join([f"## {machine()}", *map(_section, outcomes)]) + "\n"


def _section(outcome: Outcome) -> str:
    """The command, the tables it printed, and the last lines of whatever else it printed."""
    lines = [line.rstrip() for line in outcome.output.splitlines() if line.strip()]
    tables = [line for line in lines if line.startswith("|")]
    others = [line for line in lines if not line.startswith("|")][-_TEXT_LINES:]
    command = shlex.join(["python", *outcome.part.arguments])
    text = [f"### {outcome.part.title}", f"    {command}", _verdict(outcome) + "."]
    if tables:
        text.append("\n".join(tables))
    if others:
        text.append("\n".join(f"    {line}" for line in others))
    return "\n\n".join(text)


def _verdict(outcome: Outcome) -> str:
    if outcome.exit_code is None:
        return f"Ended after {outcome.seconds:.0f} s, its share of the time; what it printed until then is below"
    return f"Took {outcome.seconds:.0f} s" + (
        f" and FAILED with exit code {outcome.exit_code}" if outcome.exit_code else ""
    )


def _run(part: Part, seconds: float) -> Outcome:
    began = time.monotonic()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, *part.arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, exit_code = process.communicate(timeout=max(seconds, 1.0))[0], process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the processes that it has started
        output, exit_code = process.communicate()[0], None
    return Outcome(part=part, exit_code=exit_code, seconds=time.monotonic() - began, output=output)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="limit for all parts together")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--small", action="store_true", help="a minimal run, to see that it works")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
