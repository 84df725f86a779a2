"""What a file is that should hold a checkpoint: named, without a word of torch's and without its advice."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import CheckpointError
from jobs.networks.checkpoint import load_untrusted


def _tar(*names: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return file.getvalue()


def _zip(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return file.getvalue()


def _array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"truncated or damaged \(0 bytes\)"),
        (b"\0" * 3000, r"truncated or damaged \(3000 bytes\)"),
        (b"<!DOCTYPE html><html><title>Quota\n exceeded</title>", r"is a web page \('Quota exceeded'\): the download"),
        (b"\n <?xml version='1.0'?><html>", "is a web page: the download failed"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\n", "is a git-lfs pointer"),
        (gzip.compress(b"x", mtime=0), "is compressed by gzip; unpack it first"),
        (b"\xfd7zXZ\0rest", "is compressed"),
        (_tar("s/a.pth.tar", "s/b.pth.tar"), r"is a tar archive, .* \(holds s/a\.pth\.tar, s/b\.pth\.tar\); unpack"),
        (_zip("a", "b", "c", "d"), r"is a zip archive, not a checkpoint \(holds a, b, c and 1 more\)"),
        (_zip("a", "b")[:-10], "truncated or damaged"),
        (_zip("m/data.pkl", "m/constants.pkl", "m/code/net.py"), "is a TorchScript archive"),
        ((3).to_bytes(8, "little") + b"{xx", r"truncated or damaged \(11 bytes\)"),
        (b"\x89HDF\r\n\x1a\nrest", "is an HDF5 file"),
        (_array, "is an array of numpy"),
        (b"hello\nworld", r"is a text file that begins with 'hello\\nworld'"),
        (bytes(range(256)) * 20, "truncated or damaged"),
    ],
)
def test_a_file_is_named_for_what_it_is(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    path.write_bytes(content() if callable(content) else content)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=message) as caught:
        load_untrusted(path)
    assert str(path) in str(caught.value)
    for word in ("weights_only", "pickle", "trust", "Unpickl", "Stream"):
        assert word not in str(caught.value)
