"""What all commands share: help, configuration, exit codes."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from configs.composition import CONFIG_DIR, compose_config, groups_of, options_of, to_yaml
from jobs.errors import ConfigError, RecordError

EXIT_FAILED, EXIT_CONFIG, EXIT_INTERRUPTED = 1, 2, 130


def run_entry(config_name: str, act: Callable[[dict[str, Any]], int]) -> NoReturn:
    """Compose the configuration of ``sys.argv``, act on it, and exit the process.

    Hydra's own runner is not used: it would create working directories and log files, and exit with 1
    after a mistake on the command line.

    Exit codes: that of ``act``; 2 for a ConfigError, including a command line that does not compose;
    130 when interrupted.

    Args:
        config_name: The primary configuration, a file in this folder. Its leading comment is the
            help text.
        act: Takes the configuration as plain dictionaries and lists, and returns the exit code.
    """
    sys.exit(run_command(config_name, act, sys.argv[1:]))


def run_command(config_name: str, act: Callable[[dict[str, Any]], int], arguments: Sequence[str]) -> int:
    """``run_entry`` for given arguments, returning the exit code."""
    parser = argparse.ArgumentParser(add_help=False, prog=_command(config_name))
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job"])
    chosen, unknown = parser.parse_known_intermixed_args(arguments)
    if chosen.help:
        print(help_text(config_name))
        return 0
    try:
        if unknown:
            raise ConfigError(
                [f"unknown option {option}; write key=value; --help lists the keys" for option in unknown]
            )
        values = compose_config(config_name, chosen.overrides)
        if chosen.cfg:
            print(to_yaml(values), end="")
            return 0
        return act(values)
    except ConfigError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return EXIT_CONFIG
    except BrokenPipeError:  # the reader of our output has closed it; flushing at exit must not fail either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (RecordError, OSError) as error:  # an unsound file, a full disk: a traceback would not help
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return EXIT_INTERRUPTED


def help_text(config_name: str) -> str:
    """The leading comment of a primary configuration, the options of its groups, and its keys."""
    lines = _lines(config_name)
    body_starts = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    text = [line.removeprefix("#").removeprefix(" ") for line in lines[:body_starts]]
    keys = [line for line in lines[body_starts:] if line and not line.startswith(("defaults:", "  - "))]
    groups = groups_of(config_name)
    if groups:
        text += ["", "Groups (choose with group=option, change a value with group.key=value):"]
        text += [line for group in groups for line in _listed(f"{group:9} ", options_of(group))]
    text += ["", "Keys and their defaults:"]
    text += [f"  {line}" for line in keys]
    text += ["", "--cfg job prints the whole configuration and does nothing else."]
    return "\n".join(text)


def _listed(label: str, options: Sequence[str]) -> list[str]:
    return textwrap.wrap(
        ", ".join(options), width=80, initial_indent=f"  {label}", subsequent_indent=" " * (2 + len(label))
    )


def _command(config_name: str) -> str:
    """The command that a primary configuration belongs to: "python -m pipeline.launch"."""
    return " ".join(_lines(config_name)[0].split()[1:4])


def _lines(config_name: str) -> list[str]:
    return (CONFIG_DIR / f"{config_name}.yaml").read_text(encoding="utf-8").splitlines()
