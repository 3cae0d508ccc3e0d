"""How busy the executors keep a model: one that sleeps instead of computing."""

from __future__ import annotations

import functools
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from pipeline.annotator import Annotated, Annotation, Annotator
from pipeline.config import AnnotateConfig, EngineConfig
from pipeline.images import squash
from pipeline.masks import Mask, encode_masks, threshold_maps
from pipeline.samples import Sample
from pipeline.shards import Shard, find_shards
from pipeline.worker import Worker

WIDTH, HEIGHT, PROMPTS, GRID = 500, 375, 2, 16
SECONDS_PER_IMAGE = 0.010


class SleepingAnnotator(Annotator):
    """Sleeps where a model would compute, and notes when; masks are made of random maps."""

    def __init__(self, log: Path, config: AnnotateConfig) -> None:
        """Append the start and end of every sleep to a file of this process in `log`."""
        super().__init__(config, explain=_NoModel(log))


class _NoModel:
    ...
