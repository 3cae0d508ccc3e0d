"""Shards or results on an S3 that fails: moto, behind a proxy that makes it."""

from __future__ import annotations

import functools
import logging
import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from tests.chaos.cases import LIMIT, Case
from tests.chaos.kinds import kind
from tests.chaos.stand_ins import Trouble
from tests.chaos.web import WAITS, begin, ends_well
from tests.faulty import Fault, FaultyProxy

KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}


@functools.cache
def store() -> tuple[str, Any]:
    """Address of the S3 of all cases, and a client that asks it without a proxy."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    return address, boto3.client("s3", endpoint_url=address, **KEYS)


@contextmanager
def served(case: Case, *places: str) -> Iterator[FaultyProxy]:
    """`input`, `output` or both of the case in a bucket of its own."""
    address, client = store()
    bucket = f"b{case.draw.randrange(1 << 60)}"
    client.create_bucket(Bucket=bucket)
    with FaultyProxy(address, seed=case.draw.randrange(1 << 30)) as proxy:
        case.environment |= {
            "AWS_ENDPOINT_URL": proxy.address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if "output" in places:
            case.place = f"s3://{bucket}/out"
            case.fetch = functools.partial(fetch, case, client, bucket)
        if "input" in places:
            for path in case.input.iterdir():
                client.put_object(Bucket=bucket, Key=f"in/{path.name}", Body=path.read_bytes())
            case.source = case.root = f"s3://{bucket}/in"
        yield proxy


def fetch(case: Case, client: Any, bucket: str) -> None:
    """Bring the objects of the output to the local folder, where everybody looks for them."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", ()):
            path = case.work / item["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read())


def while_it_works(case: Case, place: str, fault: Fault) -> None:
    """The store is not available for a while in the middle."""
    with served(case, place) as proxy:
        drive = case.start(trouble=Trouble(seconds=0.5))
        drive.says("^[1-9] of", 60)
        time.sleep(case.draw.random())
        proxy.add(fault)
        case.hit()
        ends_well(case, drive, proxy)


def often(case: Case, place: str, fault: Fault) -> None:
    """A part of all requests fails, from the start to the end."""
    with served(case, place) as proxy:
        begin(proxy, fault)
        case.hit()
        ends_well(case, case.start(), proxy)


@kind("S3 input: 503 for a while", "2")
def input_unavailable(case: Case) -> None:
    while_it_works(case, "input", Fault("status", status=503, seconds=case.draw.uniform(20, 30)))
    case.must_say(WAITS)


@kind("S3 input: 500 and 503 for 30 % of all requests", "2")
def input_at_random(case: Case) -> None:
    often(case, "input", Fault("status", status=case.draw.choice([500, 503]), share=0.3))


@kind("S3 input: 30 % of the bodies cut", "2")
def input_cut(case: Case) -> None:
    often(
        case, "input", Fault("cut", share=0.3, method="GET", path=".tar", keep=case.draw.random())
    )


@kind("S3 input: 20 % of the connections dropped", "2")
def input_dropped(case: Case) -> None:
    often(case, "input", Fault(case.draw.choice(["drop", "reset"]), share=0.2))


@kind("S3 output: 503 for a while", "6")
def output_unavailable(case: Case) -> None:
    while_it_works(case, "output", Fault("status", status=503, seconds=case.draw.uniform(20, 30)))
    case.must_say(WAITS)


@kind("S3 output: 500 and 503 for 30 % of all requests", "6")
def output_at_random(case: Case) -> None:
    often(case, "output", Fault("status", status=case.draw.choice([500, 503]), share=0.3))


@kind("S3 output: 20 % of what is read of it cut", "6")
def output_cut(case: Case) -> None:
    often(case, "output", Fault("cut", share=0.2, method="GET", keep=case.draw.random()))


@kind("S3 output: 20 % of the connections dropped, what was asked done all the same", "6")
def output_dropped(case: Case) -> None:
    often(case, "output", Fault(case.draw.choice(["drop", "reset"]), share=0.2, forward=True))


@kind("S3: a request of each sort fails once, and all of them are counted", "8")
def counted(case: Case) -> None:
    """Three writes a shard, a look and a request for every 8 MiB of it; what failed comes again."""
    with served(case, "input", "output") as proxy:
        drive = case.start(trouble=Trouble(seconds=0.3))
        drive.says("^[1-9] of", LIMIT)
        for method in ("HEAD", "GET", "PUT"):
            proxy.add(Fault("status", status=case.draw.choice([500, 503]), count=1, method=method))
        case.hit()
        ends_well(case, drive, proxy, at_least=3)
        asked = [seen for seen in proxy.requests if seen.fault is None]
    sizes = [path.stat().st_size for path in case.input.iterdir()]
    most = sum(math.ceil(size / (8 << 20)) + 2 for size in sizes)
    shards = r"/(in|out/\w+)/s\d{3}[.-]"  # a commit of the last second may be read once more
    of_shards = [seen for seen in asked if re.search(shards, seen.path)]
    count = Counter("read" if seen.method in ("HEAD", "GET") else "write" for seen in of_shards)
    assert count["write"] == 3 * case.count, of_shards
    assert case.count < count["read"] <= most, of_shards
