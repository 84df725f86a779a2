"""From a Hydra command line to a plain dictionary, and from errors to exit codes.

Hydra composes, overrides and documents; it does not run anything here. What comes out is plain
Python, and the entries turn it into frozen dataclasses at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from jobs.errors import ConfigError

CONFIG_DIR = Path(__file__).parent.resolve()
EXIT_FAILED, EXIT_CONFIG = 1, 2


def run_entry(config_name: str, act: Callable[[dict[str, Any]], int]) -> NoReturn:
    """Compose the configuration of ``sys.argv``, act on it, and exit the process.

    Exit codes: what ``act`` returns; 2 for a command line that does not compose or a ConfigError;
    130 when interrupted.

    Args:
        config_name: The primary configuration, a file in this folder.
        act: Takes the configuration as plain dictionaries and lists; returns the exit code.
    """
    composed: list[DictConfig] = []

    @hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)
    def keep(config: DictConfig) -> None:
        composed.append(config)

    try:
        keep()
    except SystemExit as stop:  # Hydra has said what is wrong, and uses 1 for it
        sys.exit(EXIT_CONFIG if stop.code else 0)
    if not composed:  # --help, --cfg, ...
        sys.exit(0)
    sys.exit(_guarded(act, composed[0]))


def compose_config(config_name: str, overrides: list[str]) -> dict[str, Any]:
    """The same configuration as the command line gives, from inside a program.

    Args:
        config_name: The primary configuration, a file in this folder.
        overrides: As on the command line: ``["grid=digits", "certify.n=1000"]``.
    """
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
        return _to_plain(compose(config_name=config_name, overrides=overrides))


def _guarded(act: Callable[[dict[str, Any]], int], config: DictConfig) -> int:
    try:
        return act(_to_plain(config))
    except ConfigError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return EXIT_CONFIG
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return EXIT_FAILED


def _to_plain(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
