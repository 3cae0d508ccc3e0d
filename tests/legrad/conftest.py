"""Tiny random CLIP models and ragged batches for them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.timm_model import TimmModel
from torch import Tensor, nn

EMBED_DIM = 12
VISION = {"layers": 3, "width": 24, "head_width": 8, "patch_size": 4, "image_size": 16}
TEXT = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}


@dataclass
class Case:
    """A model and ragged pairs: image 1 has no text, the others' texts are shuffled."""

    model: CLIP
    images: Tensor
    text: Tensor = field(init=False)
    image_index: Tensor = field(init=False)

    def __post_init__(self) -> None:
        last = len(self.images) - 1
        self.image_index = torch.tensor([last, 0, last, 2, 0, last])
        text = torch.randn(len(self.image_index), EMBED_DIM, dtype=self.images.dtype)
        self.text = F.normalize(text, dim=-1)

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.images, self.text, self.image_index


def make_case(
    *,
    size: tuple[int, int] = (16, 16),
    batch: int = 4,
    dtype: torch.dtype = torch.float32,
    quick_gelu: bool = False,
    **vision: object,
) -> Case:
    torch.manual_seed(7)
    model = CLIP(EMBED_DIM, {**VISION, **vision}, TEXT, quick_gelu=quick_gelu)
    with torch.no_grad():
        # Every bias, LayerNorm and LayerScale must matter, so none keeps its neutral start.
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return Case(model.to(dtype).eval(), torch.randn(batch, 3, *size, dtype=dtype))


@contextmanager
def without_shape_checks() -> Iterator[None]:
    """As outside tests, where only our own messages answer a wrong argument."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over each map's maximum."""
    difference = (actual - expected).abs().amax(dim=(1, 2))
    return float((difference / expected.amax(dim=(1, 2))).amax())


def in_open_clip(trunk: nn.Module, projection: nn.Module | None = None) -> TimmModel:
    """A `TimmModel` around a trunk that no configuration of timm has (they are all large)."""
    model = TimmModel.__new__(TimmModel)
    nn.Module.__init__(model)
    model.trunk, model.image_size = trunk, (16, 16)
    model.head = nn.Sequential() if projection is None else nn.Sequential(projection)
    return model


@pytest.fixture(name="make_case")
def make_case_fixture() -> Callable[..., Case]:
    """`make_case(size=, batch=, dtype=, quick_gelu=, **CLIPVisionCfg fields)` → `Case`."""
    return make_case


@pytest.fixture
def case() -> Case:
    """The default tower on a native 4x4 grid."""
    return make_case()


@pytest.fixture
def snapshot() -> Callable[[nn.Module], object]:
    """Everything about a module that a caller could notice to have changed."""

    def take(module: nn.Module) -> object:
        tensors = [*module.named_parameters(), *module.named_buffers()]
        return (
            [(name, t.requires_grad, t.grad, t.detach().numpy().tobytes()) for name, t in tensors],
            [
                (name, m.training, sorted(vars(m)), dict(m._forward_hooks), dict(m._backward_hooks))
                for name, m in module.named_modules()
            ],
        )

    return take
