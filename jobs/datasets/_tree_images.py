"""One split of a tree of image files: decoding, and the fingerprint of what comes out."""

import contextlib
import functools
import hashlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from jobs.atomic import read_json, write_json
from jobs.datasets._images import CONTENT, Images
from jobs.errors import DataError
from jobs.host import num_cpus

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")

View = Literal["exact", "centre"]
"""How a file becomes an image of the dataset's size. exact: it has that size already. centre: the
shorter side is resized to 256/224 of it and the centre is cut out."""

_MAX_PIXELS = 89_478_485
"""Of a file; where Pillow begins to warn of decompression bombs."""

_NAMED = 5  # how many files a message names


@dataclass(frozen=True, kw_only=True, eq=False)
class TreeImages(Images):
    """One split of a tree; images are decoded on access."""

    image_shape: tuple[int, int, int]  # (C, H, W) of the images it gives
    view: View  # how files become images of that shape
    root: Path  # the split's folder
    paths: tuple[str, ...]  # files below it
    labels: npt.NDArray[np.int64]
    num_levels: int = 255  # the levels of the files, 0 to 255, are rounded to these

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of pixels as certified and labels; stored beside the tree until a file's size or time changes."""
        if (kept := self.kept_fingerprint()) is not None:
            return kept
        logging.info("reading %d images for their fingerprint: %s", len(self.paths), self.root)
        return self.check_all()

    def pixels(self) -> npt.NDArray[np.uint8]:
        found = np.empty((len(self.paths), *self.image_shape), dtype=np.uint8)

        def decode(index: int) -> None:
            found[index] = self.pixels_of(index)

        self._each(decode)
        return found

    def check_all(self) -> str:
        """Decode every image and store their fingerprint. Raises DataError naming images that cannot be decoded."""
        digests = self._each(lambda index: hashlib.sha256(self.pixels_of(index).tobytes()).digest())
        digest = hashlib.sha256(b"".join(digests))
        digest.update(self.labels.tobytes())
        fingerprint = f"{CONTENT}{digest.hexdigest()[:16]}"
        for cache in self._caches():
            with contextlib.suppress(OSError):  # a tree that others own
                write_json(cache, {"files": self._files, "fingerprint": fingerprint})
                break
        return fingerprint

    def pixels_of(self, index: int) -> npt.NDArray[np.uint8]:
        image = self.decoded(index)
        _, height, width = self.image_shape
        if self.view == "centre":
            image = _centre(image, height, width)
        if image.size != (width, height):
            path = self.root / self.paths[index]
            raise DataError(f"{path}: {image.width} x {image.height} pixels, expected {width} x {height}")
        pixels = np.asarray(image).reshape(height, width, -1).transpose(2, 0, 1)
        return pixels if self.num_levels == 255 else np.rint(pixels * (self.num_levels / 255)).astype(np.uint8)

    def decoded(self, index: int) -> "Image":
        """The file as an 8-bit image, RGB or grey like the dataset. Raises DataError naming it."""
        from PIL import Image, UnidentifiedImageError

        path, mode = self.root / self.paths[index], "L" if self.image_shape[0] == 1 else "RGB"
        Image.MAX_IMAGE_PIXELS = None  # the limit here is an error, not a warning that threads may lose
        try:
            with Image.open(path) as file:
                if file.width * file.height > _MAX_PIXELS:
                    raise DataError(
                        f"{path}: {file.width} x {file.height} pixels are more than the limit of {_MAX_PIXELS:,} "
                        "(a decompression bomb?); shrink or remove it"
                    )
                if file.mode.startswith("I;16"):
                    levels = (np.asarray(file).astype(np.uint32) + 128) // 257  # 65535 becomes 255
                    return Image.fromarray(levels.astype(np.uint8)).convert(mode)
                if file.mode in ("I", "F"):
                    raise DataError(f"{path}: pixels of 32 bits, with an unknown range; convert it to 8 bits")
                return file.convert(mode)
        except FileNotFoundError as error:
            raise DataError(f"{path}: no longer exists") from error
        except (OSError, SyntaxError, UnidentifiedImageError) as error:  # SyntaxError: Pillow's for broken PNG
            raise DataError(f"{path}: broken image, cannot be decoded ({error})") from error

    @functools.cached_property
    def _files(self) -> str:
        """A hash of names, sizes and times of all files, which changes when a file changes."""
        digest = hashlib.sha256()
        for path in self.paths:
            status = (self.root / path).stat()
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def kept_fingerprint(self) -> str | None:
        """The fingerprint, if it is known without reading the images."""
        for cache in self._caches():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found = read_json(cache)
                if found["files"] == self._files:
                    return str(found["fingerprint"])
        return None

    def _caches(self) -> list[Path]:
        """Where the fingerprint is kept: beside the split's folder, else with this user's caches."""
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        root = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:16]
        return [self.root.parent / f".{self.root.name}.images.json", home / "smoothadv" / f"{root}.images.json"]

    def _each(self, act: Callable[[int], T]) -> list[T]:
        """Act on every index in threads (decoding releases Python's lock), collecting the errors."""

        def attempt(index: int) -> T | DataError:
            try:
                return act(index)
            except DataError as error:
                return error

        with ThreadPoolExecutor(max_workers=num_cpus()) as pool:
            done = list(pool.map(attempt, range(len(self.paths)), chunksize=64))
        problems = [str(result) for result in done if isinstance(result, DataError)]
        if problems:
            more = [f"and {len(problems) - _NAMED} more"] if len(problems) > _NAMED else []
            raise DataError("\n".join([*problems[:_NAMED], *more]))
        return [result for result in done if not isinstance(result, DataError)]


def _centre(image: "Image", height: int, width: int) -> "Image":
    from PIL.Image import Resampling

    # The paper's transform: Resize(256), then CenterCrop(224), here for any size in that ratio.
    shorter, longer = max(height, width) * 256 // 224, max(image.size) / min(image.size)
    other = int(shorter * longer)
    size = (shorter, other) if image.width <= image.height else (other, shorter)
    resized = image.resize(size, Resampling.BILINEAR)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return resized.crop((left, top, left + width, top + height))
