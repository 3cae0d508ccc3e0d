"""What a run costs, before it begins and after; figures by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import open_clip
import pytest

from jobs.annotate import main
from pipeline.config import AnnotateConfig, ExecutionConfig, MaskConfig, ModelConfig
from pipeline.errors import ConfigError
from pipeline.inputs.shards import Shard, find_shards
from pipeline.inputs.sizes import listed_sizes
from pipeline.models.speeds import H100, MEASURED, PEAKS, Pace, paces
from pipeline.outputs.books.busy import bound_by, busy
from pipeline.outputs.books.cost import Cost, spoken
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Counts, make_commit
from pipeline.run.accounts.work import Work
from pipeline.storage import web
from tests.faulty import Fault, FaultyProxy, FileServer

PAGE = Path(__file__).parents[3] / "docs/performance.md"
COUNTS = Counts(
    samples=10, statuses={"annotated": 10}, rejects={}, prompts=10, prompts_cut=0, masks=10
)
BIGG = ModelConfig(name="ViT-bigG-14", pretrained="laion2b_s39b_b160k", precision="bfloat16")


def known(gpu: str, model: ModelConfig = BIGG, **fields: object) -> list[Pace]:
    found = paces(AnnotateConfig(model=model, **fields), gpu)  # type: ignore[arg-type]
    assert not isinstance(found, str), found
    return found


def test_measured_rows_are_those_of_the_page() -> None:
    section = PAGE.read_text().partition("\n## GPUs")[2].partition("\n## ")[0]
    assert H100 in section
    rows = re.findall(r"^\| (\S+) \| \d+ \| (\d+) \| (\d+) \|", section, re.MULTILINE)
    assert [(r.model, r.prompts, r.images_per_second) for r in MEASURED] == [
        (model, int(prompts), float(rate)) for model, prompts, rate in rows
    ]


def test_a_row_of_the_benchmark_counts_where_it_is_of_the_same_run() -> None:
    one, five = known("H100")
    assert (one.images_per_second, one.prompts, one.bound) == (211.0, 1, False)
    assert (five.images_per_second, five.prompts, five.bound) == (105.0, 5, False)
    assert one.hours(211 * 3600) == 1.0
    assert known("nvidia h100 80gb hbm3") == [one, five]
    for other in (
        known("H200"),
        known("H100 PCIe"),
        known("H100", layers=4),
        known("H100", ModelConfig(name="ViT-bigG-14", pretrained="random")),
    ):
        assert [pace.bound for pace in other] == [True]


def test_a_bound_is_what_the_model_multiplies_at_the_peak() -> None:
    """ViT-B/16, 224²: 197 tokens, 768 wide, 12 blocks; a multiply-add is two operations."""
    n, d, m = 197, 768, 3072
    block = 2 * n * d * (4 * d) + 2 * 2 * n * d * m + 2 * 2 * n * n * d
    forward = 2 * 196 * (3 * 16 * 16) * d + 12 * block
    maps = 12 * (2 * n * d * d + 2 * n * m * d + 2 * n * n * d)
    model = ModelConfig(name="ViT-B-16", pretrained="random", precision="bfloat16")
    (pace,) = known("NVIDIA A100-SXM4-80GB", model)
    assert pace.images_per_second == pytest.approx(312e12 / (forward + maps))
    (other,) = known("A100", model, method="gradcam")
    assert other.images_per_second == pytest.approx(312e12 / forward)
    single = ModelConfig(name="ViT-B-16", pretrained="random")
    assert known("A100", single)[0].images_per_second == pytest.approx(19.5e12 / (forward + maps))


def test_imagebind_is_known_by_its_image_tower() -> None:
    """It is a ViT-H/14, whatever was registered with open_clip before."""
    one = known("A100", ModelConfig("imagebind_huge", "random"))
    other = known("A100", ModelConfig("ViT-H-14", "random"))
    assert one[0].images_per_second == other[0].images_per_second


def test_what_was_measured_is_below_the_bound() -> None:
    for row in MEASURED:
        model = ModelConfig(name=row.model, pretrained="random", precision="bfloat16")
        bound = known("H200", model)[0].images_per_second
        assert row.images_per_second < bound
    assert PEAKS["H100"] == PEAKS["H200"]


@pytest.mark.parametrize(
    ("gpu", "model", "why"),
    [
        ("", BIGG, "no GPU is named"),
        ("NVIDIA", BIGG, "nothing is known of --engine.gpu NVIDIA; known are H100"),
        ("80GB", BIGG, "nothing is known of --engine.gpu 80GB; known are H100"),
        ("RTX", BIGG, "nothing is known of --engine.gpu RTX; known are H100"),
        ("H100", ModelConfig("hf-hub:a/b"), "nothing is known of the size of hf-hub:a/b"),
        ("H100", ModelConfig("RN50", "random"), "nothing is known of the size of RN50"),
        ("H100", ModelConfig("ViT-B-16-SigLIP", "random"), "nothing is known of the size of"),
    ],
)
def test_where_nothing_is_known_that_is_said(gpu: str, model: ModelConfig, why: str) -> None:
    found = paces(AnnotateConfig(model=model), gpu)
    assert isinstance(found, str) and found.startswith(why)
    assert open_clip.get_model_config("ViT-B-16-SigLIP")  # which timm computes


def test_a_dry_run_says_the_price(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], good: bytes
) -> None:
    """2 shards, one of 1,000,000 images and one of 899,000, at 211 images/s: 9000 s or 2.5 h."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.tar").write_bytes(good)
    run = ["--input", f"{tmp_path}/{{a,b}}.tar", "--output", str(tmp_path / "out"), "--dry_run"]
    run += ["--model.name", "ViT-bigG-14", "--model.pretrained", "random"]
    labels = "{ray.io/accelerator-type: H100}"
    run += ["--model.precision", "bfloat16", "--engine.labels", labels, "--engine.price", "4"]
    assert main(run) == 0
    first, one, five = (line for line in _lines(capsys) if re.match("images to do|price", line))
    assert first.startswith("images to do: unknown (2 shards without sizes.json")
    assert one == (
        "price with 1 prompt per image (measured: NVIDIA H100 80GB HBM3, ViT-bigG-14, bfloat16; "
        "maps alone): 211 images/s per GPU, 1.316 GPU-hours = 5.27 per million images"
    )
    assert "105 images/s per GPU, 2.646 GPU-hours = 10.58 per million images" in five
    (tmp_path / "sizes.json").write_text('{"a.tar": 1000000, "b.tar": 899000, "c.tar": 7}')
    assert main([*run, "--log", "json"]) == 0
    events = [json.loads(line) for line in _lines(capsys)]
    images, one, _ = (event for event in events if event["event"] in ("images", "price"))
    assert images["images"] == 1_899_000
    assert one["message"].endswith("2.5 GPU-hours = 10.00 in all")
    assert one["gpu_hours"] == pytest.approx(2.5) and one["price"] == pytest.approx(10.0)


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_may_refuse_a_list_of_sizes_that_is_not_there(tmp_path: Path, status: int) -> None:
    with FileServer(tmp_path) as server, FaultyProxy(server.address) as proxy:
        proxy.add(Fault("status", status=status))
        assert listed_sizes([Shard(f"{proxy.address}/a.tar", "a.tar", 5)]) == {}
        assert proxy.faults()["status"] == 1


def test_storage_out_of_reach_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sizes.json").write_text("{}")
    monkeypatch.setattr(web, "PATIENCE", 0.2)
    web._pool.cache_clear()
    with FileServer(tmp_path) as server, FaultyProxy(server.address) as proxy:
        proxy.add(Fault("status", status=503))
        shard = Shard(f"{proxy.address}/a.tar", "a.tar", 5)
        with pytest.raises(ConfigError, match=r"/sizes.json: not readable \(.*503") as raised:
            listed_sizes([shard])
    web._pool.cache_clear()
    assert "\n" not in str(raised.value)


def test_a_damaged_list_of_sizes_is_an_error(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(good)
    shards = find_shards([str(tmp_path / "a.tar")])
    assert listed_sizes(shards) == {}
    for damaged in ("[1]", '{"a.tar": "many"}', "{"):
        (tmp_path / "sizes.json").write_text(damaged)
        with pytest.raises(ConfigError, match=r"sizes.json: damaged"):
            listed_sizes(shards)


def test_hours_are_those_of_what_was_held() -> None:
    """Two GPUs for an hour, then three for half an hour, at 2 each: 3.5 hours, 7 in money."""
    now = [100.0]
    work = Work(price=2.0, clock=lambda: now[0])
    now[0] += 500  # nothing is held yet
    with work.returned():
        work.hold(2, "GPU")
        now[0] += 3600
        work.hold(3, "GPU")
        now[0] += 1800
    now[0] += 5000
    assert work.cost() == Cost(0, 5400.0, 3.5, "GPU", 7.0)
    assert work.cost().record()["images_per_second"] is None


def test_runs_of_an_output_are_added_up() -> None:
    first = Cost(1_000, 100.0, 0.5, "GPU", 1.0)
    second = Cost(3_000, 300.0, 1.5, "GPU", 3.0)
    both = first.plus(second)
    assert both.record() == {
        "images": 4_000,
        "seconds": 400.0,
        "images_per_second": 10.0,
        "unit": "GPU",
        "hours": 2.0,
        "hours_per_million_images": 500.0,
        "money": 4.0,
        "money_per_million_images": 1000.0,
    }
    assert Cost.of(both.record()) == both
    assert Cost().plus(first) == first == first.plus(Cost())
    assert first.plus(Cost(1, 1.0, 1.0, "GPU", None)).money is None
    assert first.plus(Cost(1, 1.0, 1.0, "worker", 2.0)).unit == "worker"
    assert Cost(1, 1.0, 1.0, "worker").plus(Cost()) == Cost(1, 1.0, 1.0, "worker")
    assert Cost.of({}) == Cost() and Cost().record() == {}


def test_the_price_is_no_part_of_what_a_run_is() -> None:
    plain = AnnotateConfig()
    engine = ExecutionConfig(price=3.0, gpu="H100")
    assert AnnotateConfig(engine=engine, log="json").fingerprint() == plain.fingerprint()
    assert AnnotateConfig(mask=MaskConfig(threshold=0.7)).fingerprint() != plain.fingerprint()
    with pytest.raises(ConfigError, match=r"--engine.price -1"):
        ExecutionConfig(price=-1.0)


def test_hours_of_another_unit_are_kept(tmp_path: Path) -> None:
    """A GPU for 2 hours, workers without one for 3 and 1, and the GPU for half an hour more."""
    gpu, cpu = Cost(30, 100.0, 2.0, "GPU", 5.0), Cost(10, 50.0, 3.0, "worker", None)
    both = gpu.plus(cpu).plus(Cost(5, 10.0, 1.0, "worker", 2.0))
    assert both == Cost(15, 60.0, 4.0, "worker", None, (gpu,))
    assert both.plus(Cost()) == both and Cost().plus(both) == both
    last = both.plus(Cost(2, 1.0, 0.5, "GPU", 1.0))
    workers = Cost(15, 60.0, 4.0, "worker", None)
    assert last == Cost(32, 101.0, 2.5, "GPU", 6.0, (workers,))
    ledger = Ledger(str(tmp_path))
    ledger.summarise([], cost=last)
    assert Ledger(str(tmp_path)).cost() == last
    assert ("worker-hours, workers", "4.00 for 15 images") in spoken(last.record())


def test_the_busiest_stage_bounds_a_run() -> None:
    """Two shards at once, 100 s each: 200 s of readers, 800 of decoders, 100 of the model."""
    stages = {"read": 20.0, "decode": 400.0, "model": 90.0, "mask": 40.0, "write": 2.0}
    shares = busy(stages, 200.0, in_flight=2, threads=4)
    assert shares == {"read": 0.1, "decode": 0.5, "model": 0.9, "mask": 0.1, "write": 0.01}
    assert bound_by(shares) == "model"
    assert bound_by(busy(stages | {"read": 199.0}, 200.0, 2, 4)) == "read"
    assert busy({"read": 1.0, "model": 2.0, "mask": 1.0}, 10.0, 2) == {}  # of an older release


def test_what_decoded_and_what_flew_is_what_counts(tmp_path: Path) -> None:
    """One shard of 10 s on a CPU with 16 threads: 80 s of decoding are half of their time.

    With two in flight it would have had the model for half of its time at the most; it flew alone,
    so that 6 s of the model are 0.6 of it.
    """
    ledger = Ledger(str(tmp_path))
    config = AnnotateConfig(engine=ExecutionConfig(shards_in_flight=2))
    ledger.open(config.identity(), config.public(), [])
    stages = {"read": 1.0, "decode": 80.0, "model": 6.0, "mask": 2.0, "write": 0.5}
    shard = Shard("/0.tar", "/0.tar", 5)
    known = {"seconds": 10.0, "attempt": 1, "stages": stages, "threads": 16}
    ledger.commit(make_commit(shard, ledger.fingerprint, COUNTS, {}, **known), {})  # type: ignore[arg-type]
    summary = ledger.summary()
    assert summary.threads == 16.0
    assert (summary.busy["decode"], summary.busy["model"]) == (0.5, 0.6)


def test_a_summary_has_what_bounds_a_run_and_what_it_has_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two shards of 10 s with all stages, and one of an older release, which does not count."""
    ledger = Ledger(str(tmp_path))
    config = AnnotateConfig(engine=ExecutionConfig(shards_in_flight=2, threads=4))
    ledger.open(config.identity(), config.public(), [])
    older = {"read": 1.0, "model": 4.0, "mask": 1.0}
    for number, stages in enumerate([older, *[older | {"decode": 2.0, "write": 0.5}] * 2]):
        shard = Shard(f"/{number}.tar", f"/{number}.tar", 5)
        commit = make_commit(
            shard, ledger.fingerprint, COUNTS, {}, seconds=10.0, attempt=1, stages=stages
        )
        ledger.commit(commit, {})
    spent = Cost(30, 100.0, 2.0, "GPU", 5.0)
    summary = ledger.summarise(state="running", cost=spent)
    assert summary.stages == {"read": 2.0, "decode": 4.0, "model": 8.0, "mask": 2.0, "write": 1.0}
    assert summary.stage_seconds == 20.0
    shares = {"read": 0.1, "decode": 0.05, "model": 0.8, "mask": 0.05, "write": 0.05}
    assert (summary.busy, summary.bound_by) == (shares, "model")
    reader = Ledger(str(tmp_path))
    assert reader.cost() == spent and reader.summary().busy == shares
    ledger.beat(summary, spent.plus(Cost(10, 10.0, 1.0, "GPU", 2.5)))
    assert reader.cost() == Cost(40, 110.0, 3.0, "GPU", 7.5)
    capsys.readouterr()
    (tmp_path / "summary.json").write_text("{")
    assert reader.cost() == Cost()
    assert "what was spent here before is not in the cost" in capsys.readouterr().out
