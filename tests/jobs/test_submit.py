"""`ray job submit` as README and docs/cluster.md have it: a clean clone, a head, and S3."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from pipeline.demo.heard import HEARD_SHARD
from pipeline.demo.run import SHARDS
from tests.jobs.head import Head, running_head, until

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"^ray job submit (?:.*\\\n)*.*", re.MULTILINE)
UPLOAD = 14.0
"""MiB that a job uploads at the most; it was 13.6 as docs/cluster.md was written."""
MANY = 24
"""Shards, so that a job can be stopped between two of them."""

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@dataclass
class Site:
    """A head, a bucket and a clean clone.

    Attributes:
        head: of Ray.
        client: of the bucket's server.
        clone: the last commit.
    """

    head: Head
    client: Any
    clone: Path

    def submit(self, command: str) -> str:
        """What `ray job submit` says until the job has ended."""
        return self.head.run(shlex.split(command), self.clone)

    def tables(self, prefix: str) -> dict[str, bytes]:
        """Name → bytes of what has to be the same in every run, below a prefix."""
        return {
            name.removeprefix(prefix): self.client.get_object(Bucket="bucket", Key=name)[
                "Body"
            ].read()
            for folder in ("annotations", "images")
            for name in self.names(f"{prefix}{folder}/")
        }

    def names(self, prefix: str) -> list[str]:
        """What there is below a prefix."""
        found = self.client.list_objects_v2(Bucket="bucket", Prefix=prefix)
        return [each["Key"] for each in found.get("Contents", [])]

    def summary(self, prefix: str) -> dict[str, Any]:
        """Of the run whose output that is."""
        body = self.client.get_object(Bucket="bucket", Key=f"{prefix}/summary.json")["Body"]
        return json.load(body)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    clone = tmp_path_factory.mktemp("stranger") / "clone"
    cloned = subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=False)
    if cloned.returncode:
        pytest.skip("not a git checkout")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    environment = {
        **keys,
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket="bucket")
    shards = [path.read_bytes() for path in sorted(SHARDS.glob("*.tar"))]
    for number in range(MANY):
        client.put_object(
            Bucket="bucket", Key=f"laion/{number:05}.tar", Body=shards[number % len(shards)]
        )
    try:
        with running_head(environment) as head:
            yield Site(head, client, clone)
    finally:
        server.stop()


def of_the_page(page: str, shards: int, output: str) -> str:
    """The first command of a page, made small."""
    command = COMMAND.search((ROOT / page).read_text())[0].replace("\\\n", " ")
    return small(command, shards, output)


def small(command: str, shards: int, output: str) -> str:
    """A command over fewer shards, into another output, with the demo's model."""
    changed = re.sub(r"--model\.\S+ \S+", "", command)
    changed = changed.replace("{00000..01023}", f"{{00000..{shards - 1:05}}}")
    changed = changed.replace("s3://bucket/masks", f"s3://bucket/{output}")
    assert changed.count(f"{shards - 1:05}}}") == 1 == changed.count(f"s3://bucket/{output}")
    return f"{changed} --limit_samples 4 --engine.threads 1"


def test_the_readmes_job(site: Site) -> None:
    said = site.submit(of_the_page("README.md", 3, "masks"))
    assert "succeeded" in said
    assert "3 of 3 shards, 12 images" in said  # the log was followed
    assert re.search(r"shards committed +│ 3 of 3", said)
    summary = site.summary("masks")
    assert (summary["shards"], summary["samples"], summary["missing"]) == (3, 12, [])
    assert len(site.tables("masks/")) == 6
    unpacked = site.head.files.glob("session_latest/runtime_resources/working_dir_files/*")
    (uploaded,) = (each for each in unpacked if each.is_dir())
    names = {each.name for each in uploaded.iterdir()}
    assert names >= {"jobs", "legrad", "pipeline", "requirements.lock"}
    assert not names & {"benchmarks", "docker", "docs", "tests", ".ci", ".git"}
    assert not [*uploaded.rglob(HEARD_SHARD.name)]
    size = sum(
        each.stat().st_size for each in uploaded.rglob("*") if "__pycache__" not in each.parts
    )
    assert size / 2**20 < UPLOAD


@pytest.mark.long
def test_a_job_without_any_setting_is_the_demo(site: Site, tmp_path: Path) -> None:
    said = site.submit(
        f"ray job submit --working-dir . -- python jobs/annotate.py --output {tmp_path}/demo"
    )
    assert "p-mIoU on the bundled points: 0.69" in said
    assert (tmp_path / "demo" / "preview.png").exists()
    assert json.loads((tmp_path / "demo" / "summary.json").read_text())["samples"] == 192


@pytest.mark.long
def test_a_job_that_is_stopped_and_submitted_again_goes_on(site: Site) -> None:
    assert "succeeded" in site.submit(of_the_page("docs/cluster.md", MANY, "undisturbed"))
    command = of_the_page("docs/cluster.md", MANY, "disturbed")
    follow = subprocess.Popen(
        shlex.split(command.replace("submit", "submit --submission-id first", 1)),
        cwd=site.clone,
        env=site.head.environment,
        stdout=subprocess.DEVNULL,
    )
    until(lambda: len(site.names("disturbed/commits/")) >= 2, "two commits")
    site.head.ask("jobs/first/stop", "POST")
    follow.wait(300)
    until(lambda: site.head.ask("jobs/first")["status"] == "STOPPED", "the job stops")
    kept = site.names("disturbed/commits/")
    assert 2 <= len(kept) < MANY
    said = site.submit(command)
    assert re.search(rf"{MANY} shards: (\d+) committed", said)[1] == f"{len(kept)}"
    assert site.summary("disturbed")["shards"] == MANY
    assert site.tables("disturbed/") == site.tables("undisturbed/")


@pytest.mark.long
def test_the_manifests_entrypoint(site: Site) -> None:
    """As KubeRay hands it over: in a shell, with the environment as JSON, the project installed."""
    spec = yaml.safe_load((ROOT / "docker" / "rayjob.yaml").read_text())["spec"]
    entrypoint = spec["entrypoint"].replace("s3://BUCKET/shards/", "s3://bucket/laion/")
    entrypoint = small(entrypoint.replace("BUCKET", "bucket"), 3, "from-manifest")
    # No GPU is here.
    entrypoint = entrypoint.replace("--engine.device cuda", "--engine.device cpu")
    entrypoint = entrypoint.replace("--engine.workers 8", "--engine.workers 2")
    environment = yaml.safe_load(spec["runtimeEnvYAML"])
    installed = {"PYTHONPATH": str(site.clone)}
    environment["env_vars"] |= installed
    given = shlex.quote(json.dumps(environment))
    said = site.head.run(
        ["bash", "-c", f"ray job submit --runtime-env-json {given} -- {entrypoint} ;"], Path("/")
    )
    assert "3 of 3 shards, 12 images" in said
    assert site.summary("from-manifest")["samples"] == 12


def test_a_token_is_needed(site: Site) -> None:
    """What docs/cluster.md says of RAY_AUTH_MODE."""
    without = {k: v for k, v in site.head.environment.items() if not k.startswith("RAY_AUTH")}
    ended = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "job", "list"],
        env=without | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode != 0
    assert "RAY_AUTH_MODE" in ended.stdout + ended.stderr
