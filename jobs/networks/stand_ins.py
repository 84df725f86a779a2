"""Stand-ins for the classes that a pickled file names, so that the rest of it can be read without running them."""

import io
import pickletools
import zipfile
from collections.abc import Iterator
from typing import Any


class StandIn:
    """What is left of an object of an unknown class: its type's name and its settings, not its arguments."""

    def __new__(cls, *arguments: Any, **named: Any) -> "StandIn":
        del arguments, named
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update((str(name), value) for name, value in state.items())


def stand_ins(data: bytes) -> list[Any]:
    """Classes that replace those unknown to torch in a checkpoint's content, for ``safe_globals``."""
    # torch looks up its own names first, and always refuses modules like os.
    names = sorted({name for pickled in _pickles(data) for name in _global_names(pickled)})
    return [
        type(qualname.rpartition(".")[2], (StandIn,), {"__module__": module, "__qualname__": qualname})
        for module, qualname in names
    ]


def _pickles(data: bytes) -> list[io.BytesIO]:
    """The pickled parts: an entry of torch's zip file, or the whole file in the older format."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return [io.BytesIO(data)]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [io.BytesIO(archive.read(name)) for name in archive.namelist() if name.endswith("data.pkl")]


def _global_names(pickled: io.BytesIO) -> Iterator[tuple[str, str]]:
    """The globals of all consecutive pickles from here."""
    while True:
        try:
            for opcode, argument, _ in pickletools.genops(pickled):
                if opcode.name == "GLOBAL":
                    module, _, qualname = str(argument).partition(" ")
                    yield module, qualname
        except ValueError:  # raw storages follow, or nothing does
            return
