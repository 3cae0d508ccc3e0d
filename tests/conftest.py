"""Run-time shape checks: in tests, every jaxtyping annotation of our packages is enforced.

The hook must be installed before the packages are imported, hence here and hence at import.
"""

import hypothesis
import pytest
from jaxtyping import install_import_hook

install_import_hook(["legrad", "pipeline"], "beartype.beartype")

# The same examples in every run, and no deadline: a busy machine is not a wrong result.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    # torchvision's decoders are to move to a package of their own; the lock file pins them.
    config.addinivalue_line(
        "filterwarnings", "ignore:The image decoding and encoding:DeprecationWarning"
    )
