"""grid.json: read as it was written, and refused when it was edited."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import RecordError
from jobs.files.manifest import read_manifest, write_manifest
from jobs.specs.runs import Manifest
from tests.grids import tiny_manifest

MANIFEST = tiny_manifest("attack=digits", "attack.epsilon=0.5")


@pytest.mark.parametrize("manifest", [MANIFEST, tiny_manifest("certify.indices=[9,3,0]")])
def test_a_manifest_survives_the_disk(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    write_manifest(path, manifest)
    assert read_manifest(path) == manifest
    inode = path.stat().st_ino
    write_manifest(path, manifest)
    assert path.stat().st_ino == inode, "the same content was written again"
    path.write_text("{")
    write_manifest(path, manifest)
    assert read_manifest(path) == manifest


def _edit(*keys: Any, value: Any) -> Callable[[Any], None]:
    def edit(plain: Any) -> None:
        *parents, last = keys
        for key in parents:
            plain = plain[key]
        plain[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_edit("runs", 1, "train", "epsilon", value=0.75), r"runs\[1\] was edited: certify.train_key is '.*e0\.25.*"),
        (_edit("runs", 0, "train_key", value="nonsense"), r"runs\[0\] was edited: train_key is 'nonsense', expected"),
        (_edit("runs", 2, "certify_key", value="s1"), r"runs\[2\] was edited: certify_key is 's1', expected 's0\.25"),
        (_edit("runs", 0, "certify", "n", value=300), r"runs\[0\] was edited: certify_key is 's0\.25-n200"),
        (_edit("runs", 0, "certify", "train_key", value="x"), r"runs\[0\] was edited: certify.train_key is 'x'"),
        (_edit("attacks", 0, "attack", "n", value=300), r"attacks\[0\] was edited: attack_key is"),
        (_edit("attacks", 0, "train", "seed", value=-1), r"attacks\[0\].train.seed"),
        (_edit("runs", 0, "indices", "stop", value=0), r"runs\[0\].indices"),
        (_edit("runs", 0, "indices", value=[4, 1, "x"]), "not a grid manifest"),
    ],
)
def test_an_edited_manifest_names_file_run_and_field(tmp_path: Path, edit: Callable[[Any], None], message: str) -> None:
    path = tmp_path / "grid.json"
    write_manifest(path, MANIFEST)
    plain = json.loads(path.read_text())
    edit(plain)
    path.write_text(json.dumps(plain))
    with pytest.raises(RecordError, match=message) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)
