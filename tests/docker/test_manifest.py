"""docker/rayjob.yaml, against KubeRay's own definition of a RayJob and against this program."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from pipeline.cli import parse
from pipeline.config import AnnotateConfig

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "docker" / "rayjob.yaml"
CRD = ROOT.parent / "shared" / "data" / "kuberay" / "ray.io_rayjobs.yaml.gz"
OUT_COMMENTED = re.compile(r"^( *)#(?=[^\s#]|  +\S)", re.MULTILINE)
NAME = re.compile(r"\d+(\.\d+)?(m|[KMGT]i?)?")


def manifest(everything: bool = False) -> dict[str, Any]:
    """The manifest; with the settings in its comments, too, if it has to be."""
    text = MANIFEST.read_text()
    if everything:
        # A volume has one source, and rules of deletion stand instead of the simple way.
        text = re.sub(
            r"^ *(emptyDir|shutdownAfter\w+|ttlSecondsAfter\w+):.*\n", "", text, flags=re.M
        )
        text = OUT_COMMENTED.sub(r"\1", text)
    return yaml.safe_load(text)


def strict(schema: Any) -> Any:
    """A structural schema of Kubernetes, with fields that it does not name as errors."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: strict(each) for name, each in value.items()}
        if key == "properties"
        else strict(value)
        for key, value in schema.items()
    }
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    if not CRD.exists():
        pytest.skip("KubeRay's definition of a RayJob is not here")
    definition = yaml.load(gzip.decompress(CRD.read_bytes()), yaml.CSafeLoader)
    (version,) = (each for each in definition["spec"]["versions"] if each["name"] == "v1")
    return Draft202012Validator(strict(version["schema"]["openAPIV3Schema"]))


def faults(validator: Draft202012Validator, job: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(job)]


@pytest.mark.parametrize("everything", [False, True], ids=["as it is", "with all in comments"])
def test_every_field_is_one_of_a_rayjob(validator: Draft202012Validator, everything: bool) -> None:
    job = manifest(everything)
    assert faults(validator, job) == []
    spec = job["spec"]
    # KubeRay refuses both together.
    assert ("deletionStrategy" in spec, "shutdownAfterJobFinishes" in spec) == (
        everything, not everything,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.backofLimit", 3),
        ("spec.backoffLimit", "3"),
        ("spec.rayClusterSpec.authOptions.mode", "tokens"),
        ("spec.rayClusterSpec.autoscalerOptions.version", "v3"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.maxReplica", 8),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.envFrom.0.secretref", {}),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.env.0.value", 300),
        ("spec.rayClusterSpec.workerGroupSpecs.0.rayStartParams.num-cpus", 4),
    ],
)
def test_the_check_finds_faults(validator: Draft202012Validator, path: str, value: object) -> None:
    job = manifest()
    *parents, last = path.split(".")
    place: Any = job
    for parent in parents:
        place = place[int(parent) if parent.isdecimal() else parent]
    place[last] = value
    (fault,) = faults(validator, job)
    assert last in fault


def test_it_says_what_this_project_says() -> None:
    spec = manifest()["spec"]
    cluster = spec["rayClusterSpec"]
    lock = (ROOT / "requirements.lock").read_text()
    assert f"\nray=={cluster['rayVersion']}\n" in lock
    (group,) = cluster["workerGroupSpecs"]
    _, _, _, *arguments = shlex.split(spec["entrypoint"])
    config = parse(AnnotateConfig, "annotate.py", None, arguments)
    worker = group["template"]["spec"]["containers"][0]
    gpus = int(worker["resources"]["limits"]["nvidia.com/gpu"])
    assert config.engine.workers == gpus * group["maxReplicas"]
    assert config.engine.device == "cuda"  # the cluster has no GPU when the run starts
    assert config.output.startswith("s3://")
    for resources in (worker["resources"], head(cluster)["resources"]):
        assert resources["requests"].keys() == resources["limits"].keys()
        assert all(NAME.fullmatch(each) for part in resources.values() for each in part.values())


def test_image_user_and_places_are_those_of_the_dockerfile() -> None:
    cluster = manifest()["spec"]["rayClusterSpec"]
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    template = cluster["workerGroupSpecs"][0]["template"]["spec"]
    worker = template["containers"][0]
    assert worker["image"] == head(cluster)["image"]
    assert f"\nUSER {template['securityContext']['fsGroup']}\n" in dockerfile
    (volume,) = json.loads(re.search(r"^VOLUME (.*)", dockerfile, re.MULTILINE)[1])
    assert [mount["mountPath"] for mount in worker["volumeMounts"]] == [volume]
    drain = {each["name"]: each["value"] for each in worker["env"]}
    assert template["terminationGracePeriodSeconds"] > int(
        drain["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]
    )


def test_the_pages_command_fills_in_every_name(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    (command,) = re.findall(r"^ *(sed .*) > annotate.yaml$", page, re.MULTILINE)
    ended = subprocess.run(
        command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True
    )
    job = yaml.safe_load(ended.stdout)
    assert not re.findall(r"\b(BUCKET|REGISTRY|TAG)\b", ended.stdout)
    image = "registry.example/legrad-annotate:1"
    assert head(job["spec"]["rayClusterSpec"])["image"] == image
    assert f"--tag {image} " in page and f"docker push {image}\n" in page
    assert "--output s3://my-bucket/masks " in job["spec"]["entrypoint"]


def test_no_secret_is_written_into_it() -> None:
    cluster = manifest()["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [each for pod in pods for each in pod["template"]["spec"]["containers"]]
    assert all(
        each["envFrom"] == [{"secretRef": {"name": "object-storage"}}] for each in containers
    )
    assert "AWS_SECRET" not in MANIFEST.read_text()


def head(cluster: dict[str, Any]) -> dict[str, Any]:
    """The container of the head."""
    (container,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    return container
