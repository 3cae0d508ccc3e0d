"""The benchmark of decoding, on scenes of the demo made small. Nothing here is timed."""

import json

import torch

from benchmarks import decode
from pipeline.models.demo import ASSETS


def test_all_ways_make_the_same_square() -> None:
    (data,) = decode._enlarged(str(ASSETS / "shards"), 1, (600, 400))
    whole = decode.ours(data, 48, None).int()
    for other in (
        decode.ours(data, 48, 96),
        decode.by_torchvision(data, 48),
        decode.by_pillow(data, 48),
    ):
        assert (other.int() - whole).abs().float().mean() < 1


def test_ways_are_timed_and_judged() -> None:
    threads = torch.get_num_threads()
    try:
        sizes = ((64, 48), (640, 480))
        results = decode.measure(str(ASSETS / "shards"), 2, rounds=1, sizes=sizes, side=16)
    finally:
        torch.set_num_threads(threads)
    assert [row["size"] for row in results["rows"]] == [[64, 48], [640, 480]]
    assert all(row[name] > 0 for row in results["rows"] for name in results["ways"])
    (target,) = results["targets"]
    assert target["name"] == "640 x 480, rate of scaled / torchvision"
    json.dumps(results)
    assert decode.markdown(results).count("| 640 x 480 |") == 1
