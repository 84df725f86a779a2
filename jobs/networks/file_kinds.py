"""Describes a file that is not a checkpoint, from its first bytes, for messages."""

import io
import re
import tarfile
import zipfile

from jobs.wording import some

_PEEK = 4096
_OLD_TORCH = {"sys_info", "pickle", "storages", "tensors"}  # members of torch's tar format, before 2018


def describe(data: bytes) -> str | None:
    """What a file is, and what to do; None if it may be a checkpoint or a damaged one."""
    start = data[:_PEEK]
    text = start.decode("utf-8", errors="replace").strip()
    if re.match(r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(!doctype|html|head|body)", text, re.IGNORECASE | re.DOTALL):
        title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
        named = f" ({' '.join(title[1].split())!r})" if title and title[1].strip() else ""
        return f"is a web page{named}: the download failed. Open the link in a browser and save the file itself"
    if text.startswith("version https://git-lfs."):
        return "is a git-lfs pointer, not the file itself; run git lfs pull in its repository"
    if is_safetensors(data):
        return None
    if start[:2] == b"\x1f\x8b":
        return "is compressed by gzip; unpack it first (gunzip, or tar xzf)"
    if start[:3] == b"BZh" or start[:6] == b"\xfd7zXZ\0" or start[:4] == b"\x28\xb5\x2f\xfd":
        return "is compressed (bzip2, xz or zstd); unpack it first"
    if start[:4] == b"PK\x03\x04":
        return _describe_zip(data)
    if data[257:262] == b"ustar":
        return _describe_tar(data)
    if start[:8] == b"\x89HDF\r\n\x1a\n":
        return "is an HDF5 file, as Keras writes them; convert it to a state_dict of torch"
    if start[:6] == b"\x93NUMPY":
        return "is an array of numpy, not a checkpoint"
    if _is_text(start):
        return f"is a text file that begins with {text[:40]!r}, not a checkpoint"
    return None


def is_safetensors(data: bytes) -> bool:
    """Whether a file begins like one of safetensors: a length, and JSON of that length."""
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8


def _describe_zip(data: bytes) -> str | None:
    try:
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    except zipfile.BadZipFile:
        return None
    inner = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in inner and any(name.partition("/")[2].startswith("code/") for name in names):
        return "is a TorchScript archive, a program with its weights; save the state_dict of its module instead"
    return None if "data.pkl" in inner else _archive("zip", names)


def _describe_tar(data: bytes) -> str | None:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            names = [member.name for member in archive if member.isfile()]
    except (tarfile.TarError, EOFError):
        return None
    return None if set(names) >= _OLD_TORCH else _archive("tar", names)


def _archive(kind: str, names: list[str]) -> str:
    return f"is a {kind} archive, not a checkpoint (holds {some(names) or 'nothing'}); unpack it and name a file of it"


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode()
    except UnicodeDecodeError:
        return False
    return bool(text.strip("\0 \n\r\t")) and all(character.isprintable() or character.isspace() for character in text)
