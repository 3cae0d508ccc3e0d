"""Run-time shape checks: in tests, every jaxtyping annotation of our packages is enforced.

The hook must be installed before the packages are imported, hence here and hence at import.
"""

import signal
from collections.abc import Iterator

import hypothesis
import pytest
from jaxtyping import install_import_hook

install_import_hook(["legrad", "pipeline"], "beartype.beartype")

# The same examples in every run, and no deadline: a busy machine is not a wrong result.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


ALLOWED_WARNINGS = (
    # torchvision's decoders are to move to a package of their own; the lock file pins them.
    "ignore:The image decoding and encoding:DeprecationWarning",
    # pycocotools' decode, with numpy 2.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    for warning in ALLOWED_WARNINGS:
        config.addinivalue_line("filterwarnings", warning)


@pytest.fixture(autouse=True)
def keep_signals() -> Iterator[None]:
    """A run sets a SIGTERM handler of its own."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
