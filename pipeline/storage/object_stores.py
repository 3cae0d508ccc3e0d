"""How object stores are reached: which of them, and how often a request is made again."""

from __future__ import annotations

import os
from collections.abc import Callable
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pyarrow import fs

ATTEMPTS = 8
"""How often the AWS SDK makes an S3 request again, after 0.025, 0.05, … 3.2 s: 6.4 s in all.

Its other policy, "standard", is of no use here: pyarrow lets it spend its budget of 100 repeats,
and never tells it of a success, which would fill it up again. The one behind `from_uri` asks every
0.2 s for as long, and waits 100 s to 5 min for a server that says nothing; this one some 30 s
(90 s for one that begins each answer and does not end it).
"""
PART = 10 << 20
"""Bytes from which on pyarrow uploads an object to S3 in parts."""
GOOGLE_SECONDS = 20
"""For how long requests to Google's storage are made again; 15 minutes by default."""


def _flag(text: str) -> bool:
    return text.lower() in ("true", "1")


S3_OPTIONS: dict[str, Callable[[str], object]] = {
    "region": str,
    "scheme": str,
    "endpoint_override": str,
    "allow_delayed_open": _flag,
    "allow_bucket_creation": _flag,
    "allow_bucket_deletion": _flag,
    "tls_ca_file_path": str,
}
"""What the query of a URI may say that pyarrow's constructor takes, too."""


def connect(root: str, in_parts: bool) -> tuple[fs.FileSystem, str]:
    """The filesystem of a bucket, and what its paths begin with.

    Args:
        root: the URI of the bucket, with credentials and query as pyarrow's `from_uri` knows them.
        in_parts: begin an upload in parts when an object is opened for writing. Without, one that
            is smaller than `PART` is one request, and not three.

    Raises:
        pyarrow.ArrowInvalid: there is no such kind of storage, or no such option.
        OSError: the region of the bucket cannot be found out.
    """
    parts = urlsplit(root)
    query = dict(reversed(parse_qsl(parts.query)))
    if parts.scheme in ("gs", "gcs"):
        query.setdefault("retry_limit_seconds", str(GOOGLE_SECONDS))
        return _from_uri(parts._replace(query=urlencode(query)).geturl())
    if parts.scheme != "s3":
        return _from_uri(root)
    query["allow_delayed_open"] = "false" if in_parts else "true"
    # Refuses what is no URI of pyarrow's, and, for a region is named, without a request.
    _from_uri(parts._replace(query=urlencode({"region": "any", **query})).geturl())
    if query.keys() - S3_OPTIONS.keys():  # of those the constructor does not have
        return _from_uri(parts._replace(query=urlencode(query)).geturl())
    return _s3(parts.netloc, {name: S3_OPTIONS[name](value) for name, value in query.items()})


def _from_uri(uri: str) -> tuple[fs.FileSystem, str]:
    filesystem, base = fs.FileSystem.from_uri(uri)
    return filesystem, base


def _s3(place: str, options: dict[str, object]) -> tuple[fs.FileSystem, str]:
    """The same as `from_uri` of [key:secret@]bucket, which takes no policy for requests."""
    login, _, bucket = place.rpartition("@")
    if login:
        key, _, secret = login.partition(":")
        options |= {"access_key": unquote(key), "secret_key": unquote(secret)}
    if "endpoint_override" not in options:
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
            if endpoint := os.environ.get(name):
                options["endpoint_override"] = endpoint
                break
        else:
            if bucket and "region" not in options:
                options["region"] = fs.resolve_s3_region(bucket)
    again = fs.AwsDefaultS3RetryStrategy(max_attempts=ATTEMPTS)
    return fs.S3FileSystem(retry_strategy=again, **options), bucket
