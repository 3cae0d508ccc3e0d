"""Run-time shape checks: in tests, every jaxtyping annotation of our packages is enforced.

The hook must be installed before the packages are imported, hence here and hence at import.
"""

import functools
import importlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from jaxtyping import install_import_hook

# What our modules import for the first time while the hook is at work, Python compiles once more.
LIBRARIES = "beartype h5py jsonargparse matplotlib.figure open_clip pandas rich.progress webdataset"
ONLY_HANDS_OUT = "-n" in sys.argv and "PYTEST_XDIST_WORKER" not in os.environ  # and runs no test
for library in LIBRARIES.split() if not ONLY_HANDS_OUT else ():
    importlib.import_module(library)
install_import_hook(["legrad", "pipeline"], "beartype.beartype")

# The same examples in every run, and no deadline: a busy machine is not a wrong result.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

ROOT = Path(__file__).parents[1]
ALLOWED_WARNINGS = (
    # What pycocotools' decode makes of its own masks, with numpy 2, whatever it is given (2.0.11).
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    # torch's datasets are generic by typing.Iterable, and who takes one is blamed for that.
    "ignore::beartype.roar.BeartypeDecorHintPep585DeprecationWarning",
)
# Files that it leaves open, and what it calls of other packages.
RAYS_OWN_WARNINGS = ("ignore::ResourceWarning", "ignore::DeprecationWarning")


def pytest_configure(config: pytest.Config) -> None:
    for warning in ALLOWED_WARNINGS:
        config.addinivalue_line("filterwarnings", warning)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: no process is left alone with one in the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    for item in items:
        if item.get_closest_marker("ray"):
            for warning in RAYS_OWN_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(autouse=True, scope="session")
def tokenizers_once() -> Iterator[None]:
    """Commands that run here share open_clip's tokenizers, which read their vocabulary anew."""
    import open_clip

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_clip, "get_tokenizer", functools.cache(open_clip.get_tokenizer))
        yield


@pytest.fixture(autouse=True)
def keep_signals() -> Iterator[None]:
    """A run sets handlers of its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[str]:
    """Address of the Ray of all tests that can share one, which this process has joined.

    A command that a test starts joins it where RAY_ADDRESS names it. It has room for four actors
    at a time, whatever the machine.
    """
    import ray  # takes seconds, which only these tests should need

    with pytest.MonkeyPatch.context() as environment, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        environment.setenv("PYTHONPATH", str(ROOT))  # of its workers
        environment.setenv("OMP_NUM_THREADS", "1")
        environment.setenv("RAY_metrics_report_interval_ms", "500")
        ray.init(
            "local",
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    yield ray.get_runtime_context().gcs_address
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.shutdown()
