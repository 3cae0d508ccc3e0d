"""From image bytes to pixels, and from pixels to what a model takes.

One decision holds for images and masks alike: pixels are taken as they are stored, and an EXIF
orientation tag is ignored. Sizes, points and masks all refer to the stored pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, UnidentifiedImageError, features
from PIL.JpegImagePlugin import JpegImageFile
from simplejpeg import decode_jpeg
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from pipeline.errors import Reject, one_line

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"),
    *(("AVIF",) if features.check("avif") else ()),
)
"""What is decoded. Pillow knows more, and has other programs decode some of it."""
PNG = b"\x89PNG\r\n\x1a\n"
SCALES = (8, 4, 2)
"""Parts of its size that a JPEG is decoded at for less: blocks of 8 x 8 become 1, 2 or 4 pixels a
side."""

# `decode` has a limit of its own; Pillow's is the same for everybody, and warns in between.
Image.MAX_IMAGE_PIXELS = None


class Picture:
    """An encoded image: its size is known at once, its pixels when they are asked for.

    Attributes:
        height: stored pixels.
        width: stored pixels.
    """

    def __init__(self, data: bytes, max_pixels: int) -> None:
        """Read the header.

        Raises:
            Reject: `undecodable` or `too_large`, with the cause.
        """
        self._data = data
        self._decoded: dict[int, UInt8[Tensor, "3 rows columns"]] = {}
        with _rejecting():
            self._opened: Image.Image | None = _opened(data, FORMATS)
            self.width, self.height = self._opened.size
            check_size(self._opened, max_pixels)
            self._scales = isinstance(self._opened, JpegImageFile)

    def pixels(self, least: int | None = None) -> UInt8[Tensor, "3 rows columns"]:
        """RGB pixels; see `decode`. Those of one scale are decoded once.

        Args:
            least: pixels that the shorter side must keep: a JPEG is decoded at 1/2, 1/4 or 1/8 of
                its size where that leaves as many. None for the stored pixels.

        Raises:
            Reject: `undecodable`, with the cause.
        """
        scale = self.scale(least)
        if scale not in self._decoded:
            with _rejecting():
                self._decoded[scale] = self._decode(scale)
        return self._decoded[scale]

    def scale(self, least: int | None) -> int:
        """What the sides are divided by, rounded up, when `least` pixels are asked for."""
        if least is None or not self._scales:
            return 1
        most = min(self.height, self.width) // least
        return next((scale for scale in SCALES if scale <= most), 1)

    def _decode(self, scale: int) -> UInt8[Tensor, "3 rows columns"]:
        # A scale is chosen only once.
        image, self._opened = self._opened or _opened(self._data, FORMATS), None
        with image:
            pixels = self._undamaged(image, scale)
            if pixels is None:
                if scale > 1:
                    image.draft(None, (self.width // scale, self.height // scale))
                pixels = _to_rgb(image)
        return self._without_padding(pixels, scale)

    def _undamaged(self, image: Image.Image, scale: int) -> UInt8[Tensor, "3 rows columns"] | None:
        """Pixels of a plain JPEG in which nothing is wrong; None for all others.

        They are Pillow's, bit by bit, for less: it holds each in four bytes and copies them twice.
        What is read over in a damaged file, and what is not, is left to Pillow: after a first
        warning, libjpeg-turbo's own interface takes every error for another one.
        """
        if image.format != "JPEG" or image.mode not in ("RGB", "L"):
            return None
        rows, columns = (-(-side // scale) for side in (self.height, self.width))
        try:
            found = decode_jpeg(self._data, min_height=rows, min_width=columns, min_factor=scale)
        except ValueError:
            return None
        return torch.from_numpy(found).permute(2, 0, 1)

    def _without_padding(
        self, pixels: UInt8[Tensor, "3 rows columns"], scale: int
    ) -> UInt8[Tensor, "3 rows columns"]:
        """The image moved to the middle of its pixels, where its last ones lie outside in part.

        Taken for whole ones, they would move everything: half a stored pixel makes four times the
        difference to all pixels that a scale of 1/2 makes itself.
        """
        if (self.width % scale, self.height % scale) == (0, 0):
            return pixels
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        box = (0, 0, self.width / scale, self.height / scale)
        return _to_rgb(image.resize(image.size, Image.Resampling.BICUBIC, box))


def decode(data: bytes, max_pixels: int) -> UInt8[Tensor, "3 height width"]:
    """RGB pixels of an image in one of `FORMATS`.

    Grey and palette images become RGB, transparency is dropped, 16-bit values keep their upper
    eight bits, floats from 0 to 1 become 0 to 255. Notes in a PNG (profiles, texts) are not read.

    Raises:
        Reject: `undecodable` or `too_large`, with the cause.
    """
    return Picture(data, max_pixels).pixels()


def _opened(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    plain = _without_notes(data) if data.startswith(PNG) else data
    return Image.open(BytesIO(plain), formats=formats)


def check_size(image: Image.Image, max_pixels: int) -> None:
    """See by its header that an image is not too large to be decoded.

    Raises:
        Reject: `too_large`.
    """
    if image.width * image.height > max_pixels:
        raise Reject("too_large", f"{image.width}x{image.height} pixels")


@contextmanager
def _rejecting(formats: tuple[str, ...] = FORMATS) -> Iterator[None]:
    """Make rejections of all that decoders of some formats raise."""
    try:
        yield
    except (Reject, MemoryError):
        raise
    except UnidentifiedImageError as error:  # its own text has an address in it
        known = f"one of {', '.join(formats)}" if len(formats) > 1 else f"a {formats[0]}"
        raise Reject("undecodable", f"not {known}") from error
    except Exception as error:  # damaged files lead Pillow's decoders to raise almost anything
        raise Reject("undecodable", one_line(error, kind=True)) from error


def _without_notes(data: bytes) -> bytes:
    """A PNG without what is not needed for its pixels (PNG specification, 4.7 and 11.3).

    Pillow refuses pictures for the size of a profile or text beside them.
    """
    kept, at = [PNG], len(PNG)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")  # length, kind, content, checksum
        kind = data[at + 4 : at + 8]
        if kind[:1].isupper() or kind == b"tRNS":  # critical, or the colours of a palette
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _to_rgb(image: Image.Image) -> UInt8[Tensor, "3 height width"]:
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_grey(np.asarray(image)))
    if image.mode == "P":  # with transparent colours, Pillow asks for this way
        image = image.convert("RGBA")
    if image.mode != "RGB":
        image = image.convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _grey(values: Shaped[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width"]:
    """8 bits of whole numbers of 16 bits, or of floats from 0 to 1.

    Raises:
        Reject: other numbers, of which nobody says what is white.
    """
    low, high = values.min(), values.max()
    is_whole = np.issubdtype(values.dtype, np.integer)
    if not 0 <= low <= high <= (65535 if is_whole else 1):  # NaN neither
        known = "0 to 65535 for whole numbers, 0 to 1 for floats"
        raise Reject(
            "undecodable", f"values from {low} to {high} of {values.dtype}; known: {known}"
        )
    if is_whole:
        grey: np.ndarray = (values.astype(np.uint32) >> 8).astype(np.uint8)
    else:
        grey = (values * 255).round().astype(np.uint8)
    return grey


def squash(
    pixels: UInt8[Tensor, "3 height width"],
    size: int,
    interpolation: InterpolationMode = InterpolationMode.BICUBIC,
) -> UInt8[Tensor, "3 {size} {size}"]:
    """Resize to a square, whatever the shape was, as Pillow would (to a grey level or two)."""
    squashed: Tensor = transforms.resize(pixels, [size, size], interpolation, antialias=True)
    return squashed


def normalise(
    batch: UInt8[Tensor, "batch 3 height width"],
    mean: Float[Tensor, "3 1 1"],
    std: Float[Tensor, "3 1 1"],
    device: torch.device,
    dtype: torch.dtype,
) -> Float[Tensor, "batch 3 height width"]:
    """From pixels to model input, (pixel / 255 - mean) / std, computed in float32 on `device`."""
    values = batch.to(device).float() / 255
    return ((values - mean.to(device)) / std.to(device)).to(dtype)


def decode_indices(data: bytes, max_pixels: int) -> Shaped[np.ndarray, "height width"]:
    """The values of a PNG as they are stored: whole numbers, or positions in its palette.

    Raises:
        Reject: `undecodable` or `too_large`, with the cause.
    """
    formats = ("PNG",)
    with _rejecting(formats), _opened(data, formats) as image:
        check_size(image, max_pixels)
        values = np.array(image)
    if values.ndim != 2:
        raise Reject("undecodable", f"{values.ndim} axes, and not one value per pixel")
    return values
