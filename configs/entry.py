"""What all commands share: help, configuration, exit codes.

A command imports this first, so everything that is slow to import is imported late.
"""

import atexit
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from configs import ctrl_c
from jobs.errors import CheckpointError, ConfigError, RecordError
from jobs.wording import say

EXIT_FAILED, EXIT_CONFIG, EXIT_INTERRUPTED = 1, 2, ctrl_c.EXIT_INTERRUPTED


def run_entry(config_name: str, module: str) -> NoReturn:
    """Compose the configuration of ``sys.argv``, act on it, and exit the process.

    Hydra's own runner would create working directories and log files, and exit with 1 after a mistake on the command
    line. The exit code is that of the command; 2 for a ConfigError; 130 when interrupted.

    Args:
        config_name: The primary configuration, a file in this folder. Its leading comment is the help text.
        module: Where the command is: a function with the name of its configuration, which takes this as plain
            dictionaries and lists, and returns the exit code. Imported when it is called.
    """
    ctrl_c.listen()

    def act(values: dict[str, Any]) -> int:
        import importlib

        exit_code: int = getattr(importlib.import_module(module), config_name)(values)
        sys.stdout.flush()  # the disk may be full
        return exit_code

    exit_code = run_command(config_name, act, sys.argv[1:])
    ctrl_c.finish()
    # Not sys.exit: a thread that Arrow has just started aborts the process while Python takes it down.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(exit_code)


def run_command(config_name: str, act: Callable[[dict[str, Any]], int], arguments: Sequence[str]) -> int:
    """Compose the configuration that arguments give, and act on it; returns the exit code."""
    try:
        options, overrides = _split(config_name, arguments)
        if options.help:
            print(help_text(config_name), flush=True)
            return 0
        from configs.composition import compose_config, to_yaml

        values = compose_config(config_name, overrides, options.config_dir)
        if options.cfg:
            print(to_yaml(values), end="", flush=True)
            return 0
        return act(values)
    except ConfigError as error:
        for problem in error.problems:
            say(f"error: {problem}", sys.stderr)
        return EXIT_CONFIG
    except BrokenPipeError:  # the reader of our output has closed it; flushing at exit must not fail either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (RecordError, CheckpointError, OSError) as error:  # an unsound file, a full disk: a traceback would not help
        say(f"error: {error}", sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(ctrl_c.MESSAGE, file=sys.stderr)
        return EXIT_INTERRUPTED


def help_text(config_name: str) -> str:
    """The leading comment of a primary configuration, the options of its groups, and its keys."""
    import textwrap

    from configs.files import groups_of, lines_of, options_of

    lines = lines_of(config_name)
    body_starts = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    text = [line.removeprefix("#").removeprefix(" ") for line in lines[:body_starts]]
    keys = [line for line in lines[body_starts:] if line and not line.startswith(("defaults:", "  - "))]
    groups = groups_of(config_name)
    if groups:
        text += ["", "Groups (choose with group=option, change a value with group.key=value):"]
        for group in groups:
            options = ", ".join(options_of(group))
            text += textwrap.wrap(options, 80, initial_indent=f"  {group:9} ", subsequent_indent=" " * 12)
    text += ["", "Keys and their defaults:"]
    text += [f"  {line}" for line in keys]
    text += ["", "--cfg job prints the whole configuration and does nothing else."]
    if groups:
        text += ["--config-dir DIR adds your own options: DIR/grid/NAME.yaml.", "GROUP=PATH.yaml uses any file."]
    return "\n".join(text)


def _split(config_name: str, arguments: Sequence[str]) -> tuple[Any, list[str]]:
    """Options and overrides; raises ConfigError if there are unknown options."""
    import argparse
    from pathlib import Path

    from configs.files import lines_of

    command = " ".join(lines_of(config_name)[0].split()[1:4])  # "python -m pipeline.launch"
    parser = argparse.ArgumentParser(add_help=False, prog=command)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job"])
    parser.add_argument("--config-dir", type=Path, metavar="DIR")
    options, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown and not options.help:
        raise ConfigError([f"unknown option {option}; write key=value; --help lists the keys" for option in unknown])
    return options, options.overrides
