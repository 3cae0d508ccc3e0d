"""Run-time shape checks: in tests, every jaxtyping annotation of our packages is enforced.

The hook must be installed before the packages are imported, hence here and hence at import.
"""

from jaxtyping import install_import_hook

install_import_hook(["legrad", "pipeline"], "beartype.beartype")
