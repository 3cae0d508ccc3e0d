"""What is raised for a model that cannot be explained."""

from __future__ import annotations

SUPPORTED = (
    "supported: transformers over patch tokens with standard pre-norm blocks, namely open_clip's "
    "VisionTransformer with CLS, average or CoCa pooling, and timm's VisionTransformer and Eva, "
    "alone or inside open_clip, with CLS, average or map pooling, rotary positions included"
)


class UnsupportedModelError(ValueError):
    """The model has no exact explanation here; the message says what was found, why, what has."""

    def __init__(self, found: str, reason: str) -> None:
        """Compose the one-line message from what was found and why it is refused."""
        super().__init__(f"{found}: {reason} ({SUPPORTED})")
        self.reason = f"{found}: {reason}"
