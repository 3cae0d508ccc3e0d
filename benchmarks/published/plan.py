"""What is compared with the published package, and the weights and inputs that both sides read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file

from benchmarks.timing import at_least_one

VIT_B_16 = {
    "embed_dim": 512,
    "vision_cfg": {"layers": 12, "width": 768, "patch_size": 16, "image_size": 224},
    "text_cfg": {"context_length": 4, "vocab_size": 16, "width": 64, "heads": 1, "layers": 1},
}
"""Its text tower is a token one: texts are random embeddings here."""

FORMS = {
    "batch": "published, batched",
    "loop": "published, per prompt",
    "reuse": "published, image encoded once",
}
"""The three ways to use the published package for several prompts. For one they are the same.

"batch" is all prompts in one call, the package's own way: it repeats the image. "loop" is a call
for each prompt. "reuse" is one `encode_image`, then a call for each prompt without an image: the
package does not document it, but its interface allows it.
"""


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        config: an open_clip model config.
        layers: how many of the last layers, each a case; the first is all of them.
        prompts: how many prompts per image: one, and more.
        rounds: repetitions of each timing, in turns, in each pair of processes.
        processes: pairs of processes, one after the other. Where a process happens to have its
            memory can cost either side a quarter of its speed, for as long as it runs.
        bfloat16_rounds: repetitions of each timing of bfloat16 against float32.
        threads: PyTorch's, on both sides.
        batch: images in the memory measurement.
        mask_images: how many of them the masks of bfloat16 and float32 are compared on.
        chunk: bytes that one chunk of prompts may take in the memory measurement.
    """

    config: dict[str, Any]
    layers: tuple[int, ...]
    prompts: tuple[int, int] = (1, 5)
    rounds: int = 5
    processes: int = 3
    bfloat16_rounds: int = 3
    threads: int = 2
    batch: int = 16
    mask_images: int = 4
    chunk: int = 64 << 20

    def __post_init__(self) -> None:
        """Refuse to measure nothing.

        Raises:
            ValueError: there is no round, or no pair of processes.
        """
        at_least_one(
            rounds=self.rounds, processes=self.processes, bfloat16_rounds=self.bfloat16_rounds
        )

    def cases(self) -> list[tuple[int, int, list[str]]]:
        """Layers, prompts, and the package's forms: one form where all are the same."""
        return [
            (layers, prompts, list(FORMS) if prompts > 1 else ["batch"])
            for layers in self.layers
            for prompts in self.prompts
        ]


def write_inputs(plan: Plan, folder: Path) -> None:
    """Write weights and inputs, seeded, for both sides to read."""
    torch.manual_seed(0)
    config = plan.config
    model = CLIP(
        config["embed_dim"],
        CLIPVisionCfg(**config["vision_cfg"]),
        CLIPTextCfg(**config["text_cfg"]),
        quick_gelu=config.get("quick_gelu", False),
    )
    side = config["vision_cfg"]["image_size"]
    text = torch.randn(max(plan.prompts), config["embed_dim"])
    tensors = {name: value.contiguous() for name, value in model.visual.state_dict().items()}
    tensors["images"] = torch.randn(plan.batch, 3, side, side)
    tensors["text"] = torch.nn.functional.normalize(text, dim=-1)
    save_file(tensors, folder / "inputs.safetensors")
    (folder / "model.json").write_text(json.dumps(config))
