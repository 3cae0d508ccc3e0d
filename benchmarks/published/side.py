"""One side of `run.py legrad`: a child process that runs one of the two `legrad` packages.

Two packages are called `legrad`, so each side runs in an interpreter of its own, and this file runs
in both: it imports nothing of this project. Requests and replies are one JSON object a line:

    → {"form": "batch", "layers": 12, "prompts": 5, "images": 1, "chunk": 1024, "measure": "time"}
    ← {"seconds": 0.98, "cpu_seconds": 1.9}
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Run = Callable[[], Tensor]


class Side(ABC):
    """A `legrad` package, a model with the exchanged weights, and the exchanged inputs."""

    name: str
    has: str
    lacks: str

    def __init__(self, folder: Path, package: Any) -> None:
        """Take model and inputs from `folder`, and make sure `package` is the intended one."""
        if not hasattr(package, self.has) or hasattr(package, self.lacks):
            raise SystemExit(
                f"{package.__file__} is not {self.name}: "
                f"expected {self.has} and no {self.lacks} in it"
            )
        self.package = package
        self._made: dict[Any, Any] = {}
        tensors = load_file(folder / "inputs.safetensors")
        self.images, self.text = tensors.pop("images"), tensors.pop("text")
        self.model = self._clip(json.loads((folder / "model.json").read_text()), tensors)

    def _clip(self, config: dict[str, Any], weights: dict[str, Tensor]) -> Any:
        open_clip = importlib.import_module("open_clip.model")
        model = open_clip.CLIP(
            config["embed_dim"],
            open_clip.CLIPVisionCfg(**config["vision_cfg"]),
            open_clip.CLIPTextCfg(**config["text_cfg"]),
            quick_gelu=config.get("quick_gelu", False),
        ).eval()
        model.visual.load_state_dict(weights)
        return model

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    @abstractmethod
    def prepare(self, form: str, layers: int, prompts: int, images: int, chunk: int) -> Run:
        """What is to be measured: from images and text embeddings to maps in [0, 1] as pixels."""


class Ours(Side):
    """This project's package, with open_clip as this project uses it."""

    name, has, lacks = "this project's legrad", "build", "LeWrapper"

    def prepare(self, form: str, layers: int, prompts: int, images: int, chunk: int) -> Run:
        """`form`: "batch" or "bfloat16", every pair in one call, or "forward", the bare encoder."""
        batch = self.images[:images]
        if form == "forward":
            return torch.no_grad()(lambda: self.model.visual(batch))
        model = self._model(form)
        explainer = self._once(
            (form, layers, chunk),
            lambda: self.package.build("legrad", model, layers=layers, memory_budget=chunk),
        )
        text = self.text[:prompts].repeat(images, 1)
        index = torch.arange(images).repeat_interleave(prompts)
        height, width = batch.shape[2:]
        return lambda: self.package.heatmap(explainer(batch, text, index), (height, width))

    def _model(self, form: str) -> Any:
        if form == "batch":
            return self.model
        if form == "bfloat16":
            return self._once(form, lambda: copy.deepcopy(self.model).to(torch.bfloat16))
        raise ValueError(f"no such form: {form}")


class Published(Side):
    """The authors' package. It takes one image at a time and changes the model it wraps."""

    name, has, lacks = "the published legrad", "LeWrapper", "build"

    def prepare(self, form: str, layers: int, prompts: int, images: int, chunk: int) -> Run:
        """`form`: "batch", "loop" or "reuse", see `FORMS` in `plan.py`."""
        if images != 1:
            raise ValueError(f"the published package takes one image at a time, not {images}")
        wrapped = self._once(
            layers,
            lambda: self.package.LeWrapper(copy.deepcopy(self.model), layer_index=-layers),
        )
        image, text = self.images[:1], self.text[:prompts]

        def batch() -> Tensor:
            maps: Tensor = wrapped.compute_legrad(text, image=image)
            return maps[0]

        def loop() -> Tensor:
            maps = [wrapped.compute_legrad(one, image=image) for one in text[:, None]]
            return torch.cat(maps, dim=1)[0]

        def reuse() -> Tensor:
            wrapped.encode_image(image)
            return torch.cat([wrapped.compute_legrad(one) for one in text[:, None]], dim=1)[0]

        return {"batch": batch, "loop": loop, "reuse": reuse}[form]


def timed(run: Run) -> dict[str, float]:
    """Seconds of one run, of the wall clock and of all threads' processor time."""
    start, cpu_start = time.perf_counter(), time.process_time()
    run()
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
    }


def high_water(run: Run) -> dict[str, int]:
    """Resident bytes before one run and the most there were during it (Linux only)."""
    Path("/proc/self/clear_refs").write_text("5")  # 5: start a new high-water mark
    before = resident("VmRSS")
    run()
    return {"before": before, "peak": resident("VmHWM")}


def resident(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise KeyError(field)


def answer(side: Side, request: dict[str, Any]) -> dict[str, Any]:
    """Do what a request asks. Only the run is measured, not what is made ready for it."""
    measure = request.pop("measure")
    run = side.prepare(**request)
    if measure == "time":
        return timed(run)
    if measure == "memory":
        return high_water(run)
    save_file({"maps": run().detach().contiguous()}, measure)
    return {"saved": measure}


def main(name: str, folder: str, threads: str) -> None:
    """Say which package this is, then answer requests until there are no more."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints goes to stderr
    torch.set_num_threads(int(threads))
    side = {"ours": Ours, "published": Published}[name](
        Path(folder), importlib.import_module("legrad")
    )
    hello = {"legrad": side.package.__file__, "attribute": side.has, "torch": torch.__version__}
    print(json.dumps(hello), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(side, json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 4:  # a folder that holds `legrad`, for an interpreter that has it nowhere
        sys.path.insert(0, sys.argv[4])
    main(*sys.argv[1:4])
