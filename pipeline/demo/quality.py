"""How good the masks of some settings are: `python -m pipeline.demo.quality --preset NAME`.

Without more, over the scenes of the bundle, which training never saw, none left out; with --seed
over others of the same kind. Streams of scenes, by what they are good for: 1 trained the model; 101
is for tuning; the bundle is for reporting; 202 and all above are for what must not have been looked
at. With --photographs, over real images with simulated maps, which judges refinement alone.

`measure` scores a method's maps at 0.5, without what makes masks of them.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.cli import ExitCode, run_command
from pipeline.config import AnnotateConfig
from pipeline.demo.bench import Bench, bounds, scores
from pipeline.demo.bundle import SIDE, key_of, write_scenes
from pipeline.demo.mask_scores import Truth, overlap_scores
from pipeline.demo.photographs import SEED, TUNED, compare
from pipeline.demo.scenes import TRAIN_SEED, Scene, make_scene, sample_points
from pipeline.demo.sprites import load_sprites
from pipeline.errors import ConfigError
from pipeline.inputs.prompts import PromptReader
from pipeline.inputs.reader import ShardReader
from pipeline.inputs.samples import Sample
from pipeline.inputs.shards import find_shards
from pipeline.models.demo import ASSETS
from pipeline.models.explain import PromptExplainer
from pipeline.outputs.masks import decode as decode_mask

GRID = 12
"""Patches of the demo's CLIP along a side."""
SHOWN = {
    "mask_miou": "mIoU",
    "band_iou": "band",
    "boundary_f": "boundary F",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "p_miou": "p-mIoU",
    "bad_share": "bad",
}
PHOTOGRAPH_THRESHOLDS = [0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5]
"""To choose from, without --thresholds."""
COMPARED = {
    "plain": "every map for itself, at its best threshold",
    "unrefined": "these settings without refinement, at its best threshold",
    "recipe": "these settings",
    "tuned": "the same at its best threshold",
}
BOUNDS = {"patches": "true masks in whole patches", "coverage": "true coverage of patches"}
OTHERS = ("input", "output", "status", "dry_run", "verify", "salvage", "retry_failed")
"""Settings of a run that have nothing to say here."""


@dataclass(frozen=True)
class QualityConfig(AnnotateConfig):
    """The masks of these settings on images of which the truth is known."""

    seed: int | None = None
    """Draw other scenes, of this stream; without it, the bundle's 192 are taken."""
    scenes: int = 96
    """With --seed: so many scenes."""
    photographs: str = ""
    """Folder of photographs with masks, instead of scenes; their maps are simulated."""
    thresholds: list[float] = dataclasses.field(default_factory=list)
    """Try these in place of --mask.threshold, and score the one with the best mIoU: to tune."""
    json: str = ""
    """File to write all figures to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in OTHERS:
            if getattr(self, name) != defaults[name]:
                raise ConfigError(f"--{name}: the bench brings its own images and writes no run")
        if self.seed == TRAIN_SEED:
            raise ConfigError(f"--seed {self.seed}: the model was trained on these scenes")
        if self.scenes < 1:
            raise ConfigError(f"--scenes {self.scenes}: must be at least 1")
        if self.prompts.source != "labels":
            raise ConfigError(f"--prompts.source {self.prompts.source}: here it is labels")
        if self.json and not Path(self.json).absolute().parent.is_dir():
            raise ConfigError(f"--json {self.json}: there is no such folder")
        if self.photographs and self.seed is not None:
            raise ConfigError("--photographs, --seed: give one of them")
        if self.photographs and self.method != "legrad":
            raise ConfigError(
                f"--photographs with --method {self.method}: simulated maps are those of legrad"
            )

    @property
    def class_file(self) -> str:
        """Class file whose names texts are contrasted with where no option says which."""
        return super().class_file or str(ASSETS / "classes.yaml")


def bundled_scenes() -> list[Scene]:
    """The held-out scenes in the bundle, as their shards and COCO ground truth have them."""
    truth = json.loads((ASSETS / "instances.json").read_text())
    names = {category["id"]: category["name"] for category in truth["categories"]}
    objects: defaultdict[int, dict[str, np.ndarray]] = defaultdict(dict)
    for annotation in truth["annotations"]:
        mask = decode_mask(annotation["segmentation"])
        objects[annotation["image_id"]][names[annotation["category_id"]]] = mask
    reader, scenes = ShardReader(lambda raw: raw.key), list[Scene]()
    for shard in find_shards([str(ASSETS / "shards")]):
        for sample in reader(shard):
            assert isinstance(sample, Sample)
            masks = objects[len(scenes) + 1]
            scenes.append(Scene(sample.pixels.permute(1, 2, 0).numpy(), masks))
    return scenes


def fresh_scenes(folder: Path, seed: int, count: int) -> list[Scene]:
    """Scenes of another stream as a shard in a folder, drawn and stored as the bundled ones are."""
    sprites = load_sprites()
    scenes = [make_scene(sprites, seed, index, SIDE) for index in range(count)]
    write_scenes(folder / "scenes.tar", 0, scenes)
    return scenes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(QualityConfig, "quality", __doc__, arguments, run, goes_on=False)


def run(config: QualityConfig) -> ExitCode:
    """Score the masks of the settings, print the scores, and write them where --json says."""
    torch.set_num_threads(config.engine.cpu_threads())
    found = score_photographs(config) if config.photographs else score_scenes(config)
    if config.json:
        Path(config.json).write_text(json.dumps(found, indent=2) + "\n")
    return ExitCode.DONE


def score_scenes(config: QualityConfig) -> dict[str, Any]:
    """The figures of the settings on scenes, at the best of the thresholds if several are given."""
    with tempfile.TemporaryDirectory() as folder:
        if config.seed is None:
            scenes, shards = bundled_scenes(), str(ASSETS / "shards")
        else:
            scenes, shards = fresh_scenes(Path(folder), config.seed, config.scenes), folder
        truths = {
            key_of(index): Truth(scene.masks, sample_points(scene, index))
            for index, scene in enumerate(scenes)
        }
        prompts_of = PromptReader(config.prompts)
        bench = Bench(
            config,
            PromptExplainer(config),
            find_shards([shards]),
            lambda raw: prompts_of(raw.fields),
            truths.__getitem__,
        )
    thresholds = config.thresholds or [config.mask.threshold]
    sweep = {level: bench.annotate(threshold=level) for level in thresholds}
    mious = {level: overlap_scores(run.pairs)["mask_miou"] for level, run in sweep.items()}
    best = max(mious, key=lambda level: mious[level])
    pairs = sweep[best].pairs
    sweep[best].seconds["model"] = sweep[thresholds[0]].seconds["model"]  # which made the maps
    found = {
        "scenes": "bundle" if config.seed is None else f"seed {config.seed}",
        "seed": config.seed,
        "images": len(bench.truths),
        "objects": len(pairs),
        "threshold": best,
        **scores(sweep[best], bench.truths),
        "bounds": bounds(pairs, GRID),
        "mask_miou_by_threshold": {f"{level:g}": value for level, value in mious.items()},
        "settings": _at(config, best).identity(),
    }
    print(f"{found['scenes']}: {found['images']} scenes, {found['objects']} objects")
    if len(mious) > 1:
        print("mIoU by threshold: " + ", ".join(f"{k:g} {v:.3f}" for k, v in mious.items()))
    print(f"at threshold {best:g}: {_line(found, SHOWN)}")
    for bound, values in found["bounds"].items():
        print(f"bound, {BOUNDS[bound]}: {_line(values, SHOWN)}")
    correlations = found["rank_correlation_with_iou"]
    print(
        "rank correlation with IoU: " + _line(correlations, {name: name for name in correlations})
    )
    seconds = found["seconds_per_image"]
    print(f"seconds per image: model {seconds['model']:.4f}, masks {seconds['mask']:.4f}")
    return found


def _at(config: QualityConfig, threshold: float) -> AnnotateConfig:
    """The settings of a run at a threshold."""
    of_run = {f.name: getattr(config, f.name) for f in dataclasses.fields(AnnotateConfig)}
    mask = dataclasses.replace(config.mask, threshold=threshold)
    return AnnotateConfig(**of_run | {"mask": mask})


def score_photographs(config: QualityConfig) -> dict[str, Any]:
    """The figures of the settings on photographs with simulated maps."""
    found = compare(config, config.photographs, config.thresholds or PHOTOGRAPH_THRESHOLDS)
    print(
        f"{found['images']} photographs, {found['objects']} classes; chosen on {TUNED} others; "
        f"noise of seed {SEED}"
    )
    for name, about in COMPARED.items():
        row = found[name]
        gain = f"  gain {row['gain']:+.3f} ± {row['error']:.3f}" if "gain" in row else ""
        seconds = f"  masks {row['seconds_per_image']['mask']:.3f} s an image"
        print(f"{about}, threshold {row['threshold']:g}: {_line(row, SHOWN)}{gain}{seconds}")
    return found | {"settings": _at(config, config.mask.threshold).identity()}


def _line(values: Mapping[str, Any], shown: Mapping[str, str]) -> str:
    return "  ".join(f"{label} {values[key]:.3f}" for key, label in shown.items() if key in values)


if __name__ == "__main__":
    sys.exit(main())
