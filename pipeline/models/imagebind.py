"""ImageBind: two towers of a CLIP as open_clip has them, and an audio tower.

The image tower is a ViT-H/14 whose patches are convolved over two equal frames, and the text tower
that of ViT-H/14; what normalisation adds to a variance is 1e-6 in both. Girdhar et al., ImageBind
(CVPR 2023); names and shapes are those of the published checkpoint, imagebind_huge.pth.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.models.audio.tower import SMALLEST, AudioSizes, AudioTower
from pipeline.models.checkpoints import NoWeights, check_file

CONFIGS = Path(__file__).parent / "audio" / "configs"
SIZES = {
    "imagebind_huge": AudioSizes(),
    "imagebind_small": AudioSizes(embed=32, width=48, layers=2, heads=4),
}
"""Audio towers by name of the model; the small one is for trying out, with random weights."""
FRAMES = 2
"""Of the video that ImageBind makes of an image, one like the other."""
UNUSED = re.compile(r"modality_(preprocessors|trunks|heads|postprocessors)\.(depth|thermal|imu)\.")
"""Modalities that nothing here asks for."""


def register() -> None:
    """Make open_clip know the towers in this process, but for what normalisation adds."""
    if not SIZES.keys() <= set(open_clip.list_models()):
        open_clip.add_model_config(CONFIGS)


class Entry(NamedTuple):
    """A tensor of the checkpoint, and where it goes.

    Attributes:
        name: in the checkpoint.
        ours: in the tower; empty for what is no parameter there.
        kind: what is done with it, one of `KINDS`.
    """

    name: str
    ours: str
    kind: str = "same"


class Kind(NamedTuple):
    """How a tensor of the checkpoint differs from that of the tower."""

    shape: Callable[[torch.Size], tuple[int, ...]]
    convert: Callable[[Tensor], Tensor]


KINDS = {
    "same": Kind(lambda shape: tuple(shape), lambda tensor: tensor),
    "transposed": Kind(lambda shape: tuple(shape[::-1]), lambda tensor: tensor.T),
    "batched": Kind(lambda shape: (1, *shape), lambda tensor: tensor[0]),
    "token": Kind(lambda shape: (1, 1, *shape), lambda tensor: tensor[0, 0]),
    # Of two equal frames, one sees the sum of both kernels.
    "video": Kind(lambda shape: (*shape[:2], FRAMES, *shape[2:]), lambda tensor: tensor.sum(dim=2)),
}
OPEN_CLIP_BLOCK = {
    "norm_1": "ln_1",
    "norm_2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "attn.out_proj": "attn.out_proj",
}
AUDIO_BLOCK = {
    "norm_1": "norm_1",
    "norm_2": "norm_2",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
    "attn.out_proj": "attn.out_proj",
}
BEFORE, TRUNK, HEAD = "modality_preprocessors", "modality_trunks", "modality_heads"
MASK = f"{BEFORE}.text.mask"
SCALE = "modality_postprocessors.audio.1.log_logit_scale"


def load_clip(name: str, file: Path | None, told: Mapping[str, Any]) -> nn.Module:
    """The image and the text tower, in open_clip's CLIP.

    Args:
        name: one of `SIZES`.
        file: a checkpoint of ImageBind; None for random weights.
        told: further arguments of `open_clip.create_model`.

    Raises:
        NoWeights: the file is no such checkpoint, or one of another size.
        OSError: it cannot be read.
    """
    tensors = None if file is None else read_tensors(name, file)
    model: nn.Module = open_clip.create_model(name, load_weights=False, **told)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = SMALLEST
    if tensors is not None:
        state = _state([*image_entries(name), *text_entries(name)], tensors, model)
        if not torch.equal(tensors[MASK].float(), model.get_buffer("attn_mask").float()):
            raise NoWeights(f"{MASK}: it is not that of a text tower that looks back alone")
        model.load_state_dict(state)
    return model


def load_audio(name: str, file: Path | None) -> AudioTower:
    """The audio tower, in float32 and evaluation mode.

    Args:
        name: one of `SIZES`.
        file: a checkpoint of ImageBind; None for random weights.

    Raises:
        NoWeights: the file is no such checkpoint, or one of another size.
        OSError: it cannot be read.
    """
    tower = AudioTower(SIZES[name])
    if file is not None:
        tensors = read_tensors(name, file)
        tower.load_state_dict(_state(audio_entries(name), tensors, tower))
    return tower.eval().requires_grad_(False)


def read_tensors(name: str, file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, those of other modalities left out.

    Raises:
        NoWeights: a tensor is missing, or one is there that ImageBind has not.
        OSError: it cannot be read.
    """
    check_file(file)
    if file.suffix == ".safetensors":
        tensors = load_file(file)
    else:
        mapped = zipfile.is_zipfile(file)  # of others, torch would speak of mapping alone
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    if not isinstance(tensors, Mapping):
        raise NoWeights("the file holds no tensors by name")
    known = {MASK, SCALE}
    for entries in (image_entries, text_entries, audio_entries):
        known |= {entry.name for entry in entries(name)}
    there = {key for key in tensors if not UNUSED.match(str(key))}
    for wrong, what in ((known - there, "has no"), (there - known, "has also")):
        if wrong:
            raise NoWeights(
                f"the file is no checkpoint of {name}: it {what} {min(map(str, wrong))} "
                f"({len(wrong)} such names)"
            )
    for key in sorted(known):
        if not (isinstance(tensors[key], Tensor) and tensors[key].is_floating_point()):
            raise NoWeights(f"{key} is no tensor of real numbers")
    if tensors[SCALE].shape:
        raise NoWeights(f"{SCALE} has the shape {list(tensors[SCALE].shape)}, and not []")
    return {key: tensors[key] for key in known}


def _state(
    entries: Iterable[Entry], tensors: Mapping[str, Tensor], tower: nn.Module
) -> dict[str, Tensor]:
    """The parameters of a tower, each from a tensor of the one shape that it may have."""
    wanted = tower.state_dict()
    state: dict[str, Tensor] = {}
    for name, ours, kind in entries:
        shape = KINDS[kind].shape(wanted[ours].shape)
        if tensors[name].shape != shape:
            raise NoWeights(f"{name} has the shape {list(tensors[name].shape)}, not {list(shape)}")
        state[ours] = KINDS[kind].convert(tensors[name])
    return state


def image_entries(name: str) -> Iterator[Entry]:
    """The image tower: 392 tensors of `imagebind_huge`."""
    yield Entry(f"{BEFORE}.vision.cls_token", "visual.class_embedding", "token")
    yield Entry(f"{BEFORE}.vision.rgbt_stem.proj.1.weight", "visual.conv1.weight", "video")
    positions = f"{BEFORE}.vision.pos_embedding_helper.pos_embed"
    yield Entry(positions, "visual.positional_embedding", "batched")
    yield from _affine(f"{TRUNK}.vision.pre_transformer_layer.0", "visual.ln_pre")
    layers = open_clip.get_model_config(name)["vision_cfg"]["layers"]
    yield from _blocks("vision", "visual.transformer.resblocks", layers, OPEN_CLIP_BLOCK)
    yield from _affine(f"{HEAD}.vision.0", "visual.ln_post")
    yield Entry(f"{HEAD}.vision.2.weight", "visual.proj", "transposed")


def text_entries(name: str) -> Iterator[Entry]:
    """The text tower: 294 tensors of `imagebind_huge`, and there is its mask."""
    yield Entry(f"{BEFORE}.text.token_embedding.weight", "token_embedding.weight")
    yield Entry(f"{BEFORE}.text.pos_embed", "positional_embedding", "batched")
    layers = open_clip.get_model_config(name)["text_cfg"]["layers"]
    yield from _blocks("text", "transformer.resblocks", layers, OPEN_CLIP_BLOCK)
    yield from _affine(f"{HEAD}.text.proj.0", "ln_final")
    yield Entry(f"{HEAD}.text.proj.1.weight", "text_projection", "transposed")
    yield Entry("modality_postprocessors.text.1.log_logit_scale", "logit_scale")


def audio_entries(name: str) -> Iterator[Entry]:
    """The audio tower: 176 tensors of `imagebind_huge`, and there is its scale."""
    yield Entry(f"{BEFORE}.audio.cls_token", "class_token")
    yield Entry(f"{BEFORE}.audio.rgbt_stem.proj.weight", "patches.weight")
    yield from _affine(f"{BEFORE}.audio.rgbt_stem.norm_layer", "stem_norm")
    yield Entry(f"{BEFORE}.audio.pos_embedding_helper.pos_embed", "positions")
    layers = SIZES[name].layers
    yield from _blocks("audio", "blocks", layers, AUDIO_BLOCK)
    for index in range(layers):
        for which in ("bias_k", "bias_v"):
            part = f"blocks.{index}.attn.{which}"
            yield Entry(f"{TRUNK}.audio.{part}", part)
    yield from _affine(f"{HEAD}.audio.0", "head_norm")
    yield Entry(f"{HEAD}.audio.2.weight", "head.weight")


def _blocks(modality: str, ours: str, layers: int, renamed: Mapping[str, str]) -> Iterator[Entry]:
    for index in range(layers):
        before, after = f"{TRUNK}.{modality}.blocks.{index}", f"{ours}.{index}"
        for parameter in ("in_proj_weight", "in_proj_bias"):
            yield Entry(f"{before}.attn.{parameter}", f"{after}.attn.{parameter}")
        for part, own in renamed.items():
            yield from _affine(f"{before}.{part}", f"{after}.{own}")


def _affine(name: str, ours: str) -> Iterator[Entry]:
    for parameter in ("weight", "bias"):
        yield Entry(f"{name}.{parameter}", f"{ours}.{parameter}")
