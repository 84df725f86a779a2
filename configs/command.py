"""smoothadv COMMAND ...: every command of this package by its name, like ``python -m pipeline.launch``.

But modules are not searched in the current folder first, so a folder ``jobs`` there does not shadow ours.
"""

import runpy
import sys

from configs.entry import EXIT_CONFIG
from configs.files import CONFIG_DIR, groups_of, lines_of, options_of
from jobs.validation import unknown_choice
from jobs.wording import say

_SHELLS = ("bash", "zsh")

SUMMARIES = {
    "cancel": "cancel the SLURM jobs of a grid",
    "efficiency": "compare what SLURM jobs requested and used",
    "envelope": "tables and figure of certified accuracy per radius",
    "export-tsv": "write records as tab-separated logs",
    "import-logs": "convert published logs to records",
    "import-records": "check and import a published grid",
    "launch": "train and certify a grid, or what is missing of it",
    "paired": "compare two models on the same images",
    "paper": "draw the tables and figures of Salman et al. 2019",
    "predict": "classify and certify image files",
    "prepare": "download and check a data set",
    "publish": "write a grid to a folder for others",
    "report": "one interactive HTML page about a grid",
    "status": "what is done, running, queued, failed or missing",
    "verify": "check every file of a grid",
}
"""What each command does, for the list of all."""


def commands() -> dict[str, str]:
    """The module of each command: those that the primary configurations name, and ``prepare``."""
    found = {path.stem.replace("_", "-"): lines_of(path.stem)[0].split()[3] for path in CONFIG_DIR.glob("*.yaml")}
    return dict(sorted({**found, "prepare": "jobs.prepare"}.items()))


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit the process."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(_help())
        sys.exit(0)
    if name in commands():
        sys.argv = [f"smoothadv {name}", *sys.argv[2:]]
        runpy.run_module(commands()[name], run_name="__main__", alter_sys=True)
        return
    shell = sys.argv[2] if len(sys.argv) > 2 else ""
    if name == "completion" and shell in _SHELLS:
        print(completion(shell))
        sys.exit(0)
    unknown = unknown_choice("command", name, [*commands(), "completion"])
    say(f"error: unknown shell {shell!r}; use bash or zsh" if name == "completion" else f"error: {unknown}", sys.stderr)
    sys.exit(EXIT_CONFIG)


def completion(shell: str) -> str:
    """Shell code, for ``eval``, that completes commands and the options of their groups."""
    words = dict[str, list[str]]()
    for command, module in commands().items():
        name = module.rpartition(".")[2]
        groups = groups_of(name) if (CONFIG_DIR / f"{name}.yaml").exists() else {}
        words[command] = [f"{group}={option}" for group in groups for option in options_of(group)]
    cases = "\n".join(f'    {command}) words="{" ".join(own)}" ;;' for command, own in words.items())
    prefix = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return f"""{prefix}_smoothadv() {{
  local words
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  [ "$COMP_CWORD" -le 1 ] && words="{" ".join([*words, "completion"])}"
  local line="${{COMP_LINE:0:$COMP_POINT}}"; local word="${{line##* }}"
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  # Readline treats the part after "=" as a separate word.
  [[ "$COMP_WORDBREAKS" == *"="* && "$word" == *=* ]] && COMPREPLY=("${{COMPREPLY[@]#${{word%=*}}=}}")
}}
complete -o default -F _smoothadv smoothadv"""


def _help() -> str:
    lines = ["smoothadv COMMAND [key=value ...]", "", "Commands (for help: smoothadv COMMAND --help):"]
    lines += [f"  {name:15} {SUMMARIES[name]}" for name in commands()]
    return "\n".join([*lines, "", 'For shell completion: eval "$(smoothadv completion bash)" (or zsh).'])


if __name__ == "__main__":
    main()
