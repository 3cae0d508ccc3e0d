"""ImageBind against what its own code computed (tests/reference), and its names and shapes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch import Tensor

import legrad
from pipeline.config import ModelConfig
from pipeline.config.weights import LICENCE
from pipeline.errors import ConfigError, ModelError
from pipeline.inputs.resampling import resample
from pipeline.inputs.sounds import RATE, Sound
from pipeline.models import imagebind
from pipeline.models.audio.spectrum import DEVIATION, MEAN, clips
from pipeline.models.audio.tower import AudioTower
from pipeline.models.clip import load_audio, load_model
from pipeline.models.sounds import SoundEncoder
from pipeline.outputs.card import annotations_card
from tests.reference.make_imagebind_reference import SOUNDS, pixels, sound, weights

REFERENCE = Path(__file__).parents[3] / "reference" / "published_imagebind.npz"
with np.load(REFERENCE) as reference:
    ARRAYS = {name: torch.from_numpy(reference[name]) for name in reference if name != "about"}
    ABOUT = json.loads(str(reference["about"]))
CPU = torch.device("cpu")
SMALL = "imagebind_small"
QUIET = (-10.0 - MEAN) / DEVIATION
"""Of a standardised logarithm of an energy."""


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return weights(ABOUT["small"])


@pytest.fixture(scope="module")
def checkpoint(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "imagebind.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def clip(checkpoint: Path) -> open_clip.CLIP:
    return load_model(ModelConfig(SMALL, str(checkpoint)), CPU, torch.float32)


@pytest.fixture(scope="module")
def tower(checkpoint: Path) -> AudioTower:
    return load_audio(ModelConfig(SMALL, str(checkpoint)))


def waveform(name: str) -> np.ndarray:
    samples, rate = sound(name)
    return resample(samples, rate, RATE)


def test_images_are_embedded_as_published(clip: open_clip.CLIP) -> None:
    with torch.no_grad():
        ours = clip.encode_image(pixels(), normalize=True)
    torch.testing.assert_close(ours, ARRAYS["images"], rtol=0, atol=1e-5)


def test_texts_are_embedded_as_published(clip: open_clip.CLIP) -> None:
    with torch.no_grad():
        ours = clip.encode_text(ARRAYS["tokens"], normalize=True)
    # 20 is the scale that stands in the weights.
    torch.testing.assert_close(ours, ARRAYS["texts"] / 20, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SOUNDS)
def test_spectra_are_the_published_ones(name: str) -> None:
    """But for the frames across the edge of a clip that an earlier clip has already moved."""
    ours = clips(torch.from_numpy(waveform(name)))[:, :, ::4, ::3]
    published = ARRAYS[f"spectra/{name}"]
    # Quiet bands are what rounding leaves of loud ones, which processors do otherwise.
    allowed = torch.where(published < QUIET, 5e-4, 1e-4)
    differing = ((ours - published).abs() > allowed).any(0).any(0).any(0)
    assert differing.sum() <= (2 if name in ("overlapping", "other_rate") else 0)


@pytest.mark.parametrize("name", ["longer", "short"])
def test_sounds_are_embedded_as_published(tower: AudioTower, name: str) -> None:
    with torch.no_grad():
        vectors = tower(clips(torch.from_numpy(waveform(name))))
    ours = 20 * torch.nn.functional.normalize(vectors, dim=-1).mean(0)
    torch.testing.assert_close(ours, ARRAYS[f"sounds/{name}"], rtol=0, atol=2e-4)
    published = ARRAYS[f"sounds/{name}"]
    encoded = SoundEncoder(tower, CPU)([Sound(name, name, waveform(name))])[0]
    unit = published / published.norm()
    torch.testing.assert_close(encoded, unit, rtol=0, atol=1e-5)


def test_the_reference_tells_normalisation_frames_and_sounds_apart(clip: open_clip.CLIP) -> None:
    """Otherwise the comparisons above would accept another model."""
    usual = open_clip.create_model(SMALL, load_weights=False).eval()
    usual.load_state_dict(clip.state_dict())
    with torch.no_grad():
        off = usual.encode_image(pixels(), normalize=True) - ARRAYS["images"]
    assert off.abs().max() > 1e-5
    longer, short = (ARRAYS[f"sounds/{name}"] / 20 for name in ("longer", "short"))
    assert (longer - short).abs().max() > 0.05


def test_resampling_is_the_published_one() -> None:
    ours = torch.from_numpy(waveform("other_rate")[::7])
    torch.testing.assert_close(ours, ARRAYS["resampled"], rtol=0, atol=1e-5)


def test_a_sound_is_embedded_once_in_each_way(
    tower: AudioTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, sound = SoundEncoder(tower, CPU), Sound("s", "digest", waveform("longer"))
    calls: list[int] = []
    ours = tower.forward

    def forward(spectra: torch.Tensor) -> torch.Tensor:
        calls.append(len(spectra))
        return ours(spectra)

    monkeypatch.setattr(tower, "forward", forward)
    first, again = encode.tiled(sound), encode.tiled(sound)
    clips_of = encode([sound, sound])[0]
    assert calls == [5, 3] and torch.equal(first, again)
    assert not torch.equal(first, clips_of)
    assert torch.equal(encode([Sound("s", "other", sound.waveform).heard()])[0], clips_of)


def test_every_name_and_shape_of_the_published_checkpoint_is_known() -> None:
    """392 of the image tower, 295 and 177 of the others; and none but those is read."""
    imagebind.register()
    name = "imagebind_huge"
    shapes = {key: tuple(shape) for key, shape in ABOUT["huge"].items()}
    with torch.device("meta"):
        towers = (open_clip.create_model(name, load_weights=False, device="meta"),) * 2
        towers += (AudioTower(imagebind.SIZES[name]),)
    counts, found = [], set()
    for tower, entries in zip(
        towers,
        (imagebind.image_entries, imagebind.text_entries, imagebind.audio_entries),
        strict=True,
    ):
        wanted = tower.state_dict()
        listed = list(entries(name))
        for entry in listed:
            assert shapes[entry.name] == imagebind.KINDS[entry.kind].shape(wanted[entry.ours].shape)
        counts.append(len(listed))
        found |= {entry.name for entry in listed}
    assert counts == [392, 294, 176]
    rest = shapes.keys() - found - {imagebind.MASK, imagebind.SCALE}
    assert len(shapes) == 1311
    assert rest == {key for key in shapes if imagebind.UNUSED.match(key)}


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.replace("fc1", "fc3"): value for key, value in state.items()}


def without_audio(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if ".audio." not in key}


def with_more(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state | {"modality_heads.smell.weight": torch.zeros(1)}


def reshaped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state | {"modality_heads.vision.2.weight": torch.zeros(64, 32)}


def with_text(state: dict[str, Tensor]) -> dict[str, Any]:
    return state | {"modality_heads.audio.0.bias": "none"}


def complex_numbers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state | {"modality_heads.audio.0.bias": torch.zeros(48, dtype=torch.complex64)}


def no_names(state: dict[str, Tensor]) -> list[Tensor]:
    return list(state.values())


def looking_ahead(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state | {imagebind.MASK: torch.zeros(77, 77)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (renamed, "no checkpoint of imagebind_small: it has no .*fc1"),
        (without_audio, "it has no .*audio"),
        (with_more, r"it has also modality_heads.smell.weight \(1 such names\)"),
        (reshaped, r"modality_heads.vision.2.weight has the shape \[64, 32\], not \[32, 64\]"),
        (looking_ahead, "looks back alone"),
        (no_names, "does not load: the file holds no tensors by name"),
        (with_text, "modality_heads.audio.0.bias is no tensor of real numbers"),
        (complex_numbers, "modality_heads.audio.0.bias is no tensor of real numbers"),
    ],
)
def test_another_checkpoint_is_refused(
    state: dict[str, Tensor], tmp_path: Path, change: Callable, said: str
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(change(state), path)
    with pytest.raises(ModelError, match=said) as error:
        load_model(ModelConfig(SMALL, str(path)), CPU, torch.float32)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [b"", b"no weights at all"], ids=["empty", "text"])
def test_a_file_that_torch_did_not_write_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="does not load: the file is ") as error:
        load_model(ModelConfig(SMALL, str(path)), CPU, torch.float32)
    assert "mmap" not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("pretrained", ["nowhere.pth", "laion2b", "", "."])
def test_weights_that_are_no_file_are_refused(pretrained: str) -> None:
    with pytest.raises(ModelError, match=r"no file, and imagebind_huge has no tags; give the che"):
        load_model(ModelConfig("imagebind_huge", pretrained), CPU, torch.float32)


def test_an_audio_tower_of_another_size_is_refused(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(state | {"modality_heads.audio.2.weight": torch.zeros(16, 48)}, path)
    with pytest.raises(ModelError, match=r"has the shape \[16, 48\], not \[32, 48\]"):
        load_audio(ModelConfig(SMALL, str(path)))


def test_a_model_without_audio_tower_is_refused() -> None:
    with pytest.raises(ConfigError, match="ViT-B-32: it has no audio tower"):
        load_audio(ModelConfig("ViT-B-32", "random"))


def test_the_licence_is_said_once_and_in_the_card(checkpoint: Path) -> None:
    config = ModelConfig(SMALL, str(checkpoint))
    assert config.weight_settings().lines.count(LICENCE) == 1
    assert ModelConfig(SMALL, "random").weight_settings().lines == ()
    for pretrained, said in ((str(checkpoint), 1), ("random", 0)):
        card = annotations_card({"name": SMALL, "pretrained": pretrained}).decode()
        assert card.count(LICENCE) == said
    assert LICENCE not in annotations_card({"name": "ViT-H-14", "pretrained": "x"}).decode()


def test_legrad_explains_a_sound_without_autograd_as_with_it(
    clip: open_clip.CLIP, tower: AudioTower
) -> None:
    """The towers are ordinary ones of open_clip, so that nothing in `legrad` is new."""
    vectors = SoundEncoder(tower, CPU)([Sound(n, n, waveform(n)) for n in ("longer", "short")])
    maps = [
        legrad.build("legrad", clip, engine=engine)(pixels()[:1], vectors, torch.zeros(2).long())
        for engine in ("closed_form", "autograd")
    ]
    torch.testing.assert_close(*maps, rtol=1e-4, atol=1e-7)
    assert (maps[0][0] - maps[0][1]).abs().max() > 1e-6
