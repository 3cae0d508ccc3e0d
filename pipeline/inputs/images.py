"""From image bytes to pixels, and from pixels to what a model takes.

One decision holds for images and masks alike: pixels are taken as they are stored, and an EXIF
orientation tag is ignored. Sizes, points and masks all refer to the stored pixels.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from pipeline.errors import Reject, one_line

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is decoded. Pillow knows more, and has other programs decode some of it."""
JPEG_END = b"\xff\xd9"

# `decode` has a limit of its own; Pillow's is the same for everybody, and warns in between.
Image.MAX_IMAGE_PIXELS = None


def decode(data: bytes, max_pixels: int) -> UInt8[Tensor, "3 height width"]:
    """RGB pixels of an image in one of `FORMATS`.

    Grey and palette images become RGB, transparency is dropped, 16-bit values keep their upper
    eight bits.

    Raises:
        Reject: `undecodable` or `too_large`, with the cause.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise Reject("too_large", f"{image.width}x{image.height} pixels")
            if image.format == "JPEG" and image.mode in ("RGB", "L") and _ends(data):
                return _decode_jpeg(data)
            return _to_rgb(image)
    except (Reject, MemoryError):
        raise
    except UnidentifiedImageError as error:  # its own text has an address in it
        raise Reject("undecodable", f"not one of {', '.join(FORMATS)}") from error
    except Exception as error:  # damaged files lead Pillow's decoders to raise almost anything
        raise Reject("undecodable", one_line(error, kind=True)) from error


def _ends(data: bytes) -> bool:
    """Whether a JPEG has its end marker: libjpeg would paint what is missing grey, in silence."""
    return JPEG_END in data[-1024:]


def _decode_jpeg(data: bytes) -> UInt8[Tensor, "3 height width"]:
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    pixels: Tensor = decode_jpeg(encoded, mode=ImageReadMode.RGB)
    return pixels


def _to_rgb(image: Image.Image) -> UInt8[Tensor, "3 height width"]:
    if image.mode.startswith("I;16") or image.mode == "I":
        grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(grey)
    if image.mode == "P":  # with transparent colours, Pillow asks for this way
        image = image.convert("RGBA")
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


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
