"""Folders of `transformers`, as `save_pretrained` writes them: CLIPs and SigLIPs for open_clip.

open_clip converts from other libraries in `open_clip.convert`, but not from this one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.config.beside import ACTIVATIONS, CLIP, SIGLIP, TRANSFORMERS, read_json
from pipeline.config.weights import FOLDER
from pipeline.models.checkpoints import NoWeights, check_file

HEADS = {CLIP: (12, 8), SIGLIP: (12, 12)}
"""Of the image and the text tower, where a configuration names none."""
SMALLEST = {CLIP: 1e-5, SIGLIP: 1e-6}
"""What normalisation adds to a variance, likewise."""
LEGACY_END = 2
"""`eos_token_id` of old CLIPs, which read a text at its highest token, as open_clip does."""

LAYERS = (
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.qkv_", ".attn.in_proj_"),
)
TEXT = (
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_projection\.weight$", "text_projection"),
    (r"^text_model\.head\.", "text_projection."),
    *LAYERS,
)
IMAGES = {
    CLIP: (
        (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
        (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
        (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
        (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
        (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
        (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
        (r"^visual_projection\.weight$", "visual.proj"),
        *LAYERS,
    ),
    SIGLIP: (
        (r"^vision_model\.embeddings\.patch_embedding\.", "visual.trunk.patch_embed.proj."),
        (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.trunk.pos_embed"),
        (r"^vision_model\.encoder\.layers\.", "visual.trunk.blocks."),
        (r"^vision_model\.post_layernorm\.", "visual.trunk.norm."),
        (r"^vision_model\.head\.probe$", "visual.trunk.attn_pool.latent"),
        (r"^vision_model\.head\.attention\.out_proj\.", "visual.trunk.attn_pool.proj."),
        (r"^vision_model\.head\.layernorm\.", "visual.trunk.attn_pool.norm."),
        (r"^vision_model\.head\.", "visual.trunk.attn_pool."),
        (r"\.layer_norm(\d)\.", r".norm\1."),
        (r"\.self_attn\.out_proj\.", ".attn.proj."),
        (r"\.self_attn\.qkv_", ".attn.qkv."),
    ),
}


def load(name: str, folder: Path, told: Mapping[str, Any]) -> nn.Module:
    """The open_clip model of a name, with the weights of a folder of `transformers`.

    Args:
        name: as open_clip lists it.
        folder: with `config.json` and the weights.
        told: further arguments of `open_clip.create_model`.

    Raises:
        NoWeights: it is no such folder, or its model is not that of the name.
        ConfigError: its configuration is no JSON object.
        OSError: it cannot be read.
    """
    config = read_json(str(folder / TRANSFORMERS)) or {}
    kind = config.get("model_type")
    if kind not in ACTIVATIONS:
        raise NoWeights(_no_folder(folder, kind))
    _check_tokenizer(folder, name, kind)
    weights = _fused(_tensors(folder))
    model: nn.Module = open_clip.create_model(name, load_weights=False, **told)
    state = _named_as_in(model, kind, weights)
    wanted = model.state_dict()
    differing = [
        key
        for key in sorted({*state, *wanted})
        if key not in state or key not in wanted or state[key].shape != wanted[key].shape
    ]
    if differing:
        fitting = ", ".join(_fitting(kind, weights)) or "none that open_clip lists"
        raise NoWeights(
            f"the model in the folder is not {name} ({differing[0]} and {len(differing) - 1} more "
            f"tensors differ); --model.name that fit its sizes: {fitting}"
        )
    _check_towers(model, kind, config)
    model.load_state_dict(state)
    if kind == SIGLIP:
        _use_activation(model, kind, config)
    return model


def _no_folder(folder: Path, kind: object) -> str:
    if (folder / "open_clip_config.json").is_file():
        return f"the folder is one of open_clip: give --model.name {FOLDER}{folder} alone"
    found = (
        f"its {TRANSFORMERS} is of {kind!r}" if kind else f"it has no {TRANSFORMERS} that says so"
    )
    return (
        f"the folder is no CLIP or SigLIP of transformers ({found}): give a file of weights of "
        "open_clip"
    )


def _tensors(folder: Path) -> dict[str, Tensor]:
    """The weights of a folder, whether they are in one file or in several."""
    single = folder / "model.safetensors"
    if not single.is_file():
        index = read_json(str(folder / f"{single.name}.index.json"))
        if index is not None:
            parts = sorted(set(index.get("weight_map", {}).values()))
            # A name in a list of parts is a file of this folder, wherever it points to.
            files = [load_file(folder / Path(part).name) for part in parts]
            return {key: tensor for file in files for key, tensor in file.items()}
        pickled = folder / "pytorch_model.bin"
        if not pickled.is_file():
            raise NoWeights(f"the folder has no {single.name}, nor parts of it, nor {pickled.name}")
        check_file(pickled)
        tensors: dict[str, Tensor] = torch.load(pickled, map_location="cpu", weights_only=True)
        return tensors
    check_file(single)
    return load_file(single)


def _fused(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value in one, and what is a projection of an attention pool apart."""
    fused: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith("position_ids"):  # a range that older releases stored
            continue
        if ".self_attn.q_proj." in name:
            three = [tensors[name.replace(".q_proj.", f".{which}_proj.")] for which in "qkv"]
            fused[name.replace(".q_proj.", ".qkv_")] = torch.cat(three)
        elif ".attention.in_proj_" in name:
            before, _, kind = name.partition("attention.in_proj_")
            width = len(tensor) // 3
            fused[f"{before}q.{kind}"] = tensor[:width]
            fused[f"{before}kv.{kind}"] = tensor[width:]
        elif not re.search(r"\.self_attn\.[kv]_proj\.", name):
            fused[name] = tensor
    return fused


def _named_as_in(model: nn.Module, kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under open_clip's names, as open_clip has them."""
    wanted = model.state_dict()
    apart = "text." if any(key.startswith("text.") for key in wanted) else ""
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        is_text = name.startswith("text_")
        renamed = name
        for pattern, replacement in TEXT if is_text else IMAGES[kind]:
            renamed = re.sub(pattern, replacement, renamed)
        if name in ("text_projection.weight", "visual_projection.weight"):
            tensor = tensor.T
        key = f"{apart}{renamed}" if is_text else renamed
        if key in wanted and tensor.numel() == wanted[key].numel() and tensor.ndim < 2:
            tensor = tensor.reshape(wanted[key].shape)  # a scalar, or a vector of one
        if key == "visual.trunk.pos_embed":
            tensor = tensor[None]
        state[key] = tensor
    return state


def _check_towers(model: Any, kind: str, config: Mapping[str, Any]) -> None:
    """See that what no shape tells is the same: heads, normalisation, where a text is read."""
    towers = (("vision_config", model.visual), ("text_config", getattr(model, "text", model)))
    for (section, tower), usual in zip(towers, HEADS[kind], strict=True):
        settings = config.get(section) or {}
        block = next(iter(_blocks(tower)))
        heads = settings.get("num_attention_heads", usual)
        if block.attn.num_heads != heads:
            raise NoWeights(f"{section}: {heads} heads, and open_clip's has {block.attn.num_heads}")
        norm = block.norm1 if hasattr(block, "norm1") else block.ln_1
        smallest = settings.get("layer_norm_eps", SMALLEST[kind])
        if not math.isclose(norm.eps, smallest, rel_tol=1e-3):
            raise NoWeights(f"{section}: layer_norm_eps {smallest}, and open_clip's is {norm.eps}")
    text = config.get("text_config") or {}
    end = text.get("eos_token_id", LEGACY_END)
    last = len(getattr(model, "text", model).token_embedding.weight) - 1
    if kind == CLIP and end not in (LEGACY_END, last):
        raise NoWeights(f"text_config: eos_token_id {end}, and open_clip reads a text at {last}")
    used = {
        (config.get(section) or {}).get("hidden_act", ACTIVATIONS[kind]) for section, _ in towers
    }
    known = {"quick_gelu", "gelu"} if kind == CLIP else {"gelu", "gelu_pytorch_tanh"}
    if len(used) > 1 or not used <= known:
        raise NoWeights(f"hidden_act {', '.join(sorted(used))}: open_clip has no such {kind}")


def _blocks(tower: Any) -> Any:
    return tower.trunk.blocks if hasattr(tower, "trunk") else tower.transformer.resblocks


def _use_activation(model: nn.Module, kind: str, config: Mapping[str, Any]) -> None:
    """Take the form of GELU that the folder names, where open_clip has chosen another."""
    named = (config.get("vision_config") or {}).get("hidden_act", ACTIVATIONS[kind])
    form = "tanh" if named == "gelu_pytorch_tanh" else "none"
    for module in model.modules():
        if isinstance(module, nn.GELU):
            module.approximate = form


def _check_tokenizer(folder: Path, name: str, kind: str) -> None:
    """See that the folder's tokens are those of open_clip's tokenizer, which is the one in use.

    Only a CLIP's are compared: a SigLIP's are a list of its own for each name in open_clip.
    """
    if kind != CLIP:
        return
    vocabulary = read_json(str(folder / "vocab.json"))
    if vocabulary is None:
        whole = read_json(str(folder / "tokenizer.json"))
        vocabulary = None if whole is None else (whole.get("model") or {}).get("vocab")
    if vocabulary is None:
        return
    tokenizer = open_clip.get_tokenizer(name)
    ours = getattr(tokenizer, "encoder", None)
    renamed = {"<|startoftext|>": "<start_of_text>", "<|endoftext|>": "<end_of_text>"}
    if ours != {renamed.get(token, token): number for token, number in vocabulary.items()}:
        raise NoWeights(f"the folder's tokens are not those of open_clip's tokenizer of {name}")


def _fitting(kind: str, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Names in open_clip whose configurations have the sizes of some tensors."""
    token = tensors["text_model.embeddings.token_embedding.weight"]
    context = len(tensors["text_model.embeddings.position_embedding.weight"])
    patches = tensors["vision_model.embeddings.patch_embedding.weight"]
    places = len(tensors["vision_model.embeddings.position_embedding.weight"]) - (kind == CLIP)
    depths = {
        tower: len({k.split(".")[3] for k in tensors if k.startswith(f"{tower}.encoder.layers.")})
        for tower in ("vision_model", "text_model")
    }
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        vision, text = config["vision_cfg"], config["text_cfg"]
        trunk = re.search(r"patch(\d+)_siglip", vision.get("timm_model_name", ""))
        patch = int(trunk[1]) if trunk else vision.get("patch_size")
        sizes = (vision.get("width"), vision.get("layers"))
        own = sizes == (len(patches), depths["vision_model"])
        fits = (
            (trunk is not None if kind == SIGLIP else own)
            and patch == patches.shape[-1]
            and vision.get("image_size") == patch * math.isqrt(places)
            and text.get("width") == token.shape[1]
            and text.get("layers") == depths["text_model"]
            and text.get("vocab_size") == len(token)
            and text.get("context_length") == context
        )
        if fits:
            yield name
