"""The other methods on poolers, classifiers and rotary positions: their formulas, or a refusal."""

import pytest
import torch
from torch import Tensor

import legrad
from legrad.towers.attention import attention, block_output
from legrad.towers.open import open_tower
from tests.legrad.towers.examples import Example, example, rotary

POOLER_METHODS = ["raw_attention", "rollout", "gradcam", "attention_cam", "chefer_cam"]


@pytest.mark.parametrize("name", ["siglip", "coca", "pe"])
@pytest.mark.parametrize("method", [m for m in legrad.METHODS if m != "legrad"])
def test_methods_of_poolers(name: str, method: str) -> None:
    case = example(name)
    if method not in POOLER_METHODS:
        with pytest.raises(legrad.UnsupportedModelError, match="defined for images that are read"):
            legrad.build(method, case.model)
        return
    raw = legrad.build(method, case.model)(*case.arguments)
    assert raw.shape == (5, 4, 4)
    prefix = open_tower(case.model).prefix_count
    for query, image in enumerate(case.image_index.tolist()):
        expected = pooler_formula(method, case, image, case.text[query])[prefix:].view(4, 4)
        torch.testing.assert_close(raw[query], expected.detach(), rtol=1e-7, atol=1e-10)


def pooler_formula(method: str, case: Example, image: int, text: Tensor) -> Tensor:
    """Each method's form for poolers, for one pair (paper, B.4; Chefer et al., 2103.15679)."""
    tower = open_tower(case.model)
    x = tower.embed(case.images[image : image + 1]).detach().requires_grad_()
    weights, outputs = [], []
    for block in tower.blocks_on((4, 4)):
        weights.append(attention(block, x))
        x = block_output(block, x, weights[-1])
        outputs.append(x)
    pool = tower.pooler.weights(x)
    score = (tower.read(tower.pooler.finish(pool @ tower.pooler.values(x))) @ text).sum()
    found = torch.autograd.grad(score, [pool, *weights, outputs[1]], allow_unused=True)
    of_pool, of_weights, of_z = found[0], found[1:-1], found[-1]
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    if method == "raw_attention":
        return pool.mean((0, 1))[0]
    if method == "gradcam":
        patches = x.shape[1] - tower.prefix_count
        w = of_z[0].sum(0) / patches
        return torch.stack([(w * z).mean().clamp(min=0) for z in outputs[1][0]])
    if method == "attention_cam":
        return sum(of_pool[0, h].mean() * pool[0, h, 0] for h in range(pool.shape[1]))
    r = eye
    if method == "rollout":
        for a in weights[1:]:
            m = a.mean((0, 1)) + eye
            r = (m / m.sum(1, keepdim=True)) @ r
        return pool.mean((0, 1))[0] @ r
    for a, g in zip(weights, of_weights, strict=True):
        r = r + (a * g).clamp(min=0).mean((0, 1)) @ r
    added = r - eye
    rows = [row / row.sum() if row.sum() > 0 else row for row in added]
    return (pool * of_pool).clamp(min=0).mean((0, 1))[0] @ (eye + torch.stack(rows))


def test_variants_of_pooler_baselines() -> None:
    case = example("siglip")
    for method, options in (("chefer_cam", {"raw_r": True}), ("rollout", {"row0": True})):
        plain = legrad.build(method, case.model)(*case.arguments)
        other = legrad.build(method, case.model, **options)(*case.arguments)
        assert (legrad.minmax(plain) - legrad.minmax(other)).abs().max() > 1e-3


@pytest.mark.parametrize("method", [m for m in legrad.METHODS if m != "legrad"])
def test_methods_of_a_classifier(method: str) -> None:
    case = example("registers")
    raw = legrad.build(method, case.model)(*case.arguments)
    assert raw.shape == ((5, 16, 16) if method == "lrp" else (5, 4, 4))
    assert raw.isfinite().all()


@pytest.mark.parametrize("method", ["lrp", "partial_lrp", "transformer_attribution"])
def test_relevance_has_no_rule_for_rotary_positions(method: str) -> None:
    with pytest.raises(legrad.UnsupportedModelError, match="a tower with rotary positions"):
        legrad.build(method, rotary())


def test_cls_methods_refuse_a_tower_read_by_its_average() -> None:
    case = example("classifier by average")
    with pytest.raises(legrad.UnsupportedModelError, match="read by cls"):
        legrad.build("chefer_cam", case.model)
    assert legrad.build("gradcam", case.model)(*case.arguments).any()
