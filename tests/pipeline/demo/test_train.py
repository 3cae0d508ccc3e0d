"""Training of the demo's CLIP: a few steps, from scenes to weights that a run can load."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pipeline.demo import train as module
from pipeline.demo.sprites import CLASSES
from pipeline.models.demo import create

STEPS, BATCH = 3, 4


def test_a_few_steps_change_the_weights_and_are_measured_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The emoji font need not be installed.
    sprites = {
        name: Image.new("RGBA", (48, 48), (5 * i, 200, 90)) for i, name in enumerate(CLASSES)
    }
    monkeypatch.setattr(module, "load_sprites", lambda font: sprites)
    monkeypatch.setattr(module, "BATCH", BATCH)
    monkeypatch.setattr(module, "MEASURE_EVERY", 2 * BATCH)
    monkeypatch.setattr(module, "MEASURE_SCENES", 2)
    output = tmp_path / "new" / "weights.safetensors"
    module.train(images=STEPS * BATCH + 1, output=output, device="cpu")
    said = capsys.readouterr().out
    assert said.count("held-out scenes: p-mIoU 0.") == 2, "in the middle, and at the end"
    assert f"{STEPS * BATCH} of {STEPS * BATCH} images  loss " in said
    torch.manual_seed(0)
    before, after = create(pretrained=None).state_dict(), load_file(output)
    assert after.keys() == before.keys()
    assert all(value.isfinite().all() for value in after.values())
    changed = {name for name, value in after.items() if not value.equal(before[name].half())}
    assert {name.partition(".")[0] for name in changed} >= {"visual", "transformer"}
