"""Figures of the stand-in GPU and of long runs, from logs written here. Nothing is timed."""

import io
from pathlib import Path

import pytest
import torch

from benchmarks.engine import flat, host
from benchmarks.engine.busy import busy_share
from benchmarks.engine.sleeper import Pace, Sleeper, shard_of, slept
from pipeline.inputs.prompts import Prompt
from pipeline.inputs.samples import Sample
from pipeline.inputs.tars import read_samples

MAPS = torch.arange(3.0).view(3, 1, 1).expand(3, 16, 16)


def test_busy_is_the_share_of_sleep_after_the_first_part_of_a_run() -> None:
    # Until 2 of 10 seconds nothing counts; from 3 to 10, five of seven seconds are slept.
    sleeps = [(0.0, 0.5, 16), (3.0, 5.0, 16), (7.0, 10.0, 24)]
    assert busy_share(sleeps) == {"busy": 5 / 7, "images_per_s": 40 / 7}
    with pytest.raises(RuntimeError, match="take more seconds"):
        busy_share([(0.0, 10.0, 16)])


def test_a_stand_in_hands_its_maps_back_in_turn_and_writes_down_its_sleeps(tmp_path: Path) -> None:
    model = Sleeper(Pace(0.0, MAPS, tmp_path))
    prompts = [Prompt(number, None, None, (f"text {number}",)) for number in range(2)]
    pixels = torch.zeros(3, 224, 224, dtype=torch.uint8)
    samples = [Sample(number, str(number), 480, 640, pixels, prompts) for number in range(2)]
    found = model(samples)
    assert [maps.raw[:, 0, 0].tolist() for maps in found] == [[0, 1], [2, 0]]
    assert found[0].texts == ["text 0", "text 1"] and found[0].prompts is prompts
    ((began, ended, images),) = slept(tmp_path)
    assert began <= ended and images == 2


def test_a_shard_has_pictures_again_and_again() -> None:
    samples = list(read_samples(io.BytesIO(shard_of([b"a", b"b"], 3, 2))))
    assert [sample.fields["jpg"] for sample in samples] == [b"a", b"b", b"a"]
    assert samples[2].fields["json"] == b'{"labels": ["thing 0", "thing 1"]}'


def test_parts_of_a_run_are_its_mean_memory_and_its_most_handles_and_threads() -> None:
    looks = [flat.Look(float(number), number % 3, 7 - number) for number in range(8)]
    assert flat.part(looks, (0.25, 0.5)) == flat.Look(2.5, 2, 5)
    with pytest.raises(RuntimeError, match="too short"):
        flat.part(looks[:1], (0.75, 0.98))


@pytest.mark.parametrize(
    ("late", "met"),
    [
        ((150.0, 9, 12), [True, True, True]),
        ((401.0, 9, 12), [False, True, True]),
        ((150.0, 13, 15), [True, False, False]),
    ],
)
def test_a_run_that_grows_is_not_flat(late: tuple[float, int, int], met: list[bool]) -> None:
    row = {"early": (100.0, 10, 12), "late": late, "peak_mb": 500, "allowed_mb": 300.0}
    results = {"rows": {"run": row | {"images": 10, "seconds": 60.0}}}
    assert [target.met for target in flat.targets(results)] == met
    assert "100 → " in flat.markdown(results)


def test_this_process_can_be_looked_at() -> None:
    look = flat.Look.at_this_process()
    assert look.mb > 10 and look.handles >= 3 and look.threads >= 1


def test_a_profile_says_how_many_cores_a_gpu_needs() -> None:
    steps = dict.fromkeys((*host.STEPS, "in all"), 1.0) | {"together": 10.8}
    row = {
        "size": [640, 480],
        "prompts": 5,
        "decode": "full",
        "images": 8,
        "kilobytes": 150.0,
        "ms": steps,
    }
    text = host.markdown({"batch_size": 16, "rows": [row]})
    assert "| ViT-bigG-14 | 5.4 ms, at 65 % of an H100's peak | 2.0 |" in text
    assert "| ≤ 10 | 10.8 | NO |" in text
    without = host.markdown({"batch_size": 16, "rows": [row | {"prompts": 1}]})
    assert "cores" not in without.replace("core-ms", "")


def test_the_limit_of_large_photographs_is_for_those_decoded_at_a_scale() -> None:
    steps = dict.fromkeys((*host.STEPS, "in all"), 1.0) | {"together": 70.0}
    rows = [
        {
            "size": [4000, 3000],
            "prompts": 5,
            "decode": decode,
            "images": 8,
            "kilobytes": 150.0,
            "ms": steps,
        }
        for decode in host.DECODES
    ]
    (target,) = host.targets({"batch_size": 16, "rows": rows})
    assert target.name == "4000 x 3000, 5 prompts, scaled: core-ms per image" and not target.met
