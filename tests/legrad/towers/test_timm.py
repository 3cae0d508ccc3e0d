"""SigLIP, CoCa, classifiers, registers, EVA, rotary positions: embeddings, maps, refusals."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import timm
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.timm_model import TimmModel
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import legrad
from legrad.towers.attention import attention, block_output
from legrad.towers.open import open_tower
from tests.legrad.conftest import EMBED_DIM, TEXT, VISION, in_open_clip

SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}


def randomised(model: nn.Module) -> nn.Module:
    """Every bias, LayerNorm and LayerScale must matter, so none keeps its neutral start."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.15 * torch.randn_like(parameter) + (parameter.ndim == 1))
            if parameter.ndim > 1:
                parameter.mul_(2)
    return model.eval().double()


def coca() -> CLIP:
    vision = {**VISION, "attentional_pool": True, "attn_pooler_heads": 4}
    return CLIP(EMBED_DIM, {**vision, "attn_pooler_queries": 3}, TEXT)


def siglip(**kwargs: object) -> TimmModel:
    trunk = VisionTransformer(
        **SMALL, num_classes=0, class_token=False, global_pool="map", **kwargs
    )
    return in_open_clip(trunk)


def vit(**kwargs: object) -> VisionTransformer:
    return VisionTransformer(**{**SMALL, "num_classes": 5, **kwargs})


def eva(**kwargs: object) -> Eva:
    return Eva(**{**SMALL, "num_classes": 5, "global_pool": "token", **kwargs})


def rotary(**kwargs: object) -> Eva:
    return eva(**{"attn_type": "rope", "use_rot_pos_emb": True, **kwargs})


PE = {
    "global_pool": "map", "attn_pool_num_heads": 4, "use_pre_transformer_norm": True,
    "ref_feat_shape": (4, 4), "rope_grid_indexing": "xy",
}  # fmt: skip
DINOV3 = {
    "rope_type": "dinov3", "attn_type": "eva", "rope_rotate_half": True, "rope_temperature": 100,
    "use_abs_pos_emb": False, "num_reg_tokens": 4, "init_values": 0.1, "qkv_bias": False,
    "dynamic_img_size": True,
}  # fmt: skip
ROTARY: dict[str, Callable[[], nn.Module]] = {
    "pe": lambda: in_open_clip(rotary(**PE, rope_grid_offset=1.0, num_classes=9)),
    "pe without cls": lambda: in_open_clip(rotary(**PE, class_token=False, num_classes=9)),
    "rotary": rotary,
    "rotary by average": lambda: rotary(global_pool="avg", attn_type="eva"),
    "rotary mixed": lambda: rotary(rope_type="mixed", no_embed_class=True, num_reg_tokens=2),
    "dinov3": lambda: rotary(**DINOV3),
    "dinov3 of one size": lambda: rotary(**{**DINOV3, "dynamic_img_size": False}),
}
TOWERS: dict[str, Callable[[], nn.Module]] = {
    "siglip": siglip,
    "siglip gelu tanh": lambda: siglip(act_layer="gelu_tanh"),
    "siglip with head": lambda: in_open_clip(
        VisionTransformer(**SMALL, num_classes=7, class_token=False, global_pool="map")
    ),
    "coca": lambda: coca().visual,
    "coca same width": lambda: (
        CLIP(24, {**VISION, "attentional_pool": True, "attn_pooler_heads": 4}, TEXT).visual
    ),
    "clipa": lambda: (
        CLIP(EMBED_DIM, {**VISION, "pool_type": "avg", "final_ln_after_pool": True}, TEXT).visual
    ),
    "classifier": vit,
    "classifier by average": lambda: vit(global_pool="avg"),
    "classifier without cls": lambda: vit(global_pool="avg", class_token=False),
    "deit3": lambda: vit(no_embed_class=True, init_values=1e-2),
    "registers": lambda: vit(reg_tokens=3, init_values=1e-2),
    "registers without position": lambda: vit(reg_tokens=3, no_embed_class=True, num_classes=0),
    "no qkv bias": lambda: vit(qkv_bias=False),
    "pre norm": lambda: vit(pre_norm=True),
    "clip in timm": lambda: in_open_clip(vit(num_classes=0), nn.Linear(24, 9, bias=True)),
    "eva": eva,
    "eva by average": lambda: eva(global_pool="avg", init_values=0.1),
    "eva in open_clip": lambda: in_open_clip(eva(num_classes=9)),
    **ROTARY,
}


@dataclass
class Example:
    """A tower with ragged pairs; image 1 has no text."""

    model: nn.Module
    images: Tensor
    text: Tensor
    image_index: Tensor

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.images, self.text, self.image_index


def example(name: str, size: tuple[int, int] = (16, 16)) -> Example:
    model = randomised(TOWERS[name]())
    images = torch.randn(3, 3, *size, dtype=torch.float64)
    text = torch.randn(5, open_tower(model).head.width, dtype=torch.float64)
    return Example(model, images, F.normalize(text, dim=1), torch.tensor([2, 0, 2, 2, 0]))


every_tower = pytest.mark.parametrize("name", TOWERS)


@every_tower
def test_the_embedding_is_the_models_own(name: str) -> None:
    case = example(name)
    expected = own_embedding(case.model, case.images)
    for engine in legrad.ENGINES:
        encoding = legrad.build("legrad", case.model, engine=engine).encode(case.images)
        torch.testing.assert_close(encoding.embedding, expected, rtol=1e-9, atol=1e-11)


@torch.no_grad()
def own_embedding(model: nn.Module, images: Tensor) -> Tensor:
    if isinstance(model, VisionTransformer | Eva):  # a classifier: logits without the bias
        return model.forward_head(model.forward_features(images), pre_logits=True)
    return F.normalize(model(images), dim=1)


@pytest.mark.parametrize("name", ROTARY)
@pytest.mark.parametrize("size", [(24, 24), (8, 12)])
def test_rotary_positions_of_other_grids_are_those_of_a_resized_model(
    name: str, size: tuple[int, int]
) -> None:
    case = example(name, size)
    resized = copy.deepcopy(case.model)
    (resized.trunk if isinstance(resized, TimmModel) else resized).set_input_size(size)
    encoding = legrad.build("legrad", case.model).encode(case.images)
    expected = own_embedding(resized, case.images)
    # timm resizes positions in float32.
    torch.testing.assert_close(encoding.embedding, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ROTARY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rotary_positions_in_other_types(name: str, dtype: torch.dtype) -> None:
    case = example(name)
    model, images = case.model.to(dtype), case.images.to(dtype)
    embedding, raw = legrad.build("legrad", model).explain(images, case.text, case.image_index)
    assert raw.isfinite().all()
    assert raw.any()
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    expected = own_embedding(model, images).float()
    close = {"rtol": tolerance, "atol": tolerance * float(expected.abs().max())}
    torch.testing.assert_close(embedding, expected, **close)


@pytest.mark.parametrize("rope_type", ["cat", "mixed", "dinov3"])
@pytest.mark.parametrize("method", ["legrad", "chefer_cam", "naclip"])
def test_rotary_positions_are_not_moved_in_training(
    rope_type: str, method: str, snapshot: Callable[[nn.Module], object]
) -> None:
    model = randomised(rotary(rope_type=rope_type, rope_rescale_coords=2.0))
    images = torch.randn(1, 3, 8, 12, dtype=torch.float64)
    text, index = F.normalize(torch.randn(1, 24, dtype=torch.float64)), torch.tensor([0])
    expected = legrad.build(method, model)(images, text, index)
    model.train()
    before = snapshot(model)
    for engine in legrad.ENGINES:
        with torch.inference_mode():
            raw = legrad.build(method, model, engine=engine)(images.clone(), text, index)
        torch.testing.assert_close(raw, expected)
    assert snapshot(model) == before


@pytest.mark.parametrize("name", ["rotary", "rotary mixed"])
def test_the_last_score_is_differentiated_through_rotary_blocks(name: str) -> None:
    case = example(name)
    model, tower = case.model, open_tower(case.model)
    arguments = case.images[:1], case.text[:1], torch.tensor([0])
    options = {"engine": "autograd", "score_layer": "last", "pool": "cls"}
    with torch.inference_mode():
        raw = legrad.build("legrad", model, [0], **options)(*arguments)
    x, first = tower.embed(case.images[:1]), tower.blocks_on((4, 4))[0]
    weights = attention(first, x).detach().requires_grad_()
    z = block_output(first, x, weights)
    for index, block in enumerate(model.blocks[1:], 1):
        rope = model.rope.get_embed()
        z = block(z, rope=rope[index] if model.rope_mixed else rope)
    embedding = model.forward_head(model.norm(z), pre_logits=True)
    torch.testing.assert_close(embedding, own_embedding(model, case.images[:1]))
    (gradient,) = torch.autograd.grad((embedding @ case.text[0]).sum(), weights)
    expected = gradient.clamp(min=0).mean(dim=(0, 1, 2))[tower.prefix_count :].view(1, 4, 4)
    torch.testing.assert_close(raw, expected)


def test_a_rotary_block_is_not_used_without_a_grid() -> None:
    tower = open_tower(randomised(rotary()))
    tokens = torch.randn(1, 17, 24, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="a block with rotary positions is used without them"):
        tower.blocks[0].attention_inputs(tokens)
    assert len(tower.blocks_on((4, 4))[0].attention_inputs(tokens)) == 3


def test_scores_of_a_classifier_are_logits_without_bias() -> None:
    case = example("classifier")
    rows, bias = case.model.head.weight.detach(), case.model.head.bias
    embedding = legrad.build("legrad", case.model).encode(case.images).embedding
    expected = (case.model(case.images) - bias).detach()
    torch.testing.assert_close(embedding @ rows.T, expected)


@every_tower
@pytest.mark.parametrize("size", [(16, 16), (8, 12)])
@pytest.mark.parametrize("relu", [True, False])
def test_the_closed_form_equals_autograd(name: str, size: tuple[int, int], relu: bool) -> None:
    case = example(name, size)
    fast = legrad.build("legrad", case.model, relu=relu)
    slow = legrad.build("legrad", case.model, relu=relu, engine="autograd")
    raw = fast(*case.arguments)
    assert raw.shape == (5, size[0] // 4, size[1] // 4)
    expected = slow(*case.arguments)
    assert expected.abs().amax(dim=(1, 2)).min() > 0
    torch.testing.assert_close(raw, expected, rtol=1e-8, atol=1e-9 * float(expected.abs().max()))
    kept = fast.maps(fast.encode(case.images), case.text, case.image_index)
    torch.testing.assert_close(kept, raw)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("siglip", {"apply_trunk_norm": True}),
        ("pe", {"apply_trunk_norm": True}),
        ("coca", {"coca": "official"}),
    ],
)
def test_variants_of_poolers(name: str, options: dict[str, object]) -> None:
    case = example(name)
    fast = legrad.build("legrad", case.model, **options)(*case.arguments)
    slow = legrad.build("legrad", case.model, engine="autograd", **options)(*case.arguments)
    torch.testing.assert_close(fast, slow, rtol=1e-8, atol=1e-12)
    plain = legrad.build("legrad", case.model)(*case.arguments)
    assert (legrad.minmax(fast) - legrad.minmax(plain)).abs().max() > 0.01


@pytest.mark.parametrize("name", ["siglip", "coca", "pe"])
def test_the_pooler_is_differentiated_as_finite_differences_say(name: str) -> None:
    case = example(name)
    tower = open_tower(case.model)
    options = {} if name == "coca" else {"apply_trunk_norm": True}
    raw = legrad.build("legrad", case.model, layers=1, **options)
    pooler, image = tower.pooler, case.images[:1]
    seen: list[Tensor] = []
    blocks = case.model.transformer.resblocks if name == "coca" else case.model.trunk.blocks
    hook = blocks[-1].register_forward_hook(lambda *arguments: seen.append(arguments[2]))
    embedding = F.normalize(case.model(image), dim=1)
    hook.remove()
    z = seen[0]
    weights = pooler.weights(z).detach()

    def score(a: Tensor) -> Tensor:
        return (tower.read(pooler.finish(a @ pooler.values(z))) @ case.text[0]).sum()

    torch.testing.assert_close(score(weights), (embedding @ case.text[0]).sum())
    gradient, step = torch.zeros_like(weights), 1e-5
    for position in range(weights.numel()):
        delta = torch.zeros_like(weights)
        delta.view(-1)[position] = step
        gradient.view(-1)[position] = (score(weights + delta) - score(weights - delta)) / (2 * step)
    expected = gradient.clamp(min=0).mean(dim=(0, 1, 2))[tower.prefix_count :].view(1, 4, 4)
    actual = raw(image, case.text[:1], torch.tensor([0]))
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("option", [{"pool": "cls"}, {"score_layer": "last"}])
def test_ablations_that_a_pooler_has_no_meaning_for(option: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="read through an attention pooler"):
        legrad.build("legrad", randomised(siglip()), engine="autograd", **option)


def test_there_is_no_score_of_cls_without_cls() -> None:
    model = vit(global_pool="avg", class_token=False)
    with pytest.raises(ValueError, match="this tower has no CLS token"):
        legrad.build("legrad", model, engine="autograd", pool="cls")


def test_siglip_normalises_before_upsampling() -> None:
    for engine in legrad.ENGINES:
        assert legrad.build("legrad", siglip(), engine=engine).normalise_before_upsampling
        assert not legrad.build("legrad", coca(), engine=engine).normalise_before_upsampling
        assert not legrad.build("legrad", vit(), engine=engine).normalise_before_upsampling


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


def test_prefix_tokens_never_become_cells() -> None:
    """A register that shouts louder than every patch changes no cell's place."""
    case = example("registers")
    raw = legrad.build("legrad", case.model)(*case.arguments)
    explainer = legrad.build("legrad", case.model, engine="autograd")
    assert raw.shape == explainer(*case.arguments).shape == (5, 4, 4)
    assert open_tower(case.model).prefix_count == 4


def two_norms() -> nn.Module:
    model = vit(fc_norm=True)
    model.norm = nn.LayerNorm(24)
    return model


REFUSED = {
    "rotary mrope": (
        lambda: rotary(rope_type="mrope", rope_mrope_section=(1, 1, 1)),
        "Eva with rotary positions RotaryEmbeddingMRope: known are RotaryEmbeddingCat, ",
    ),
    "eva02": (lambda: rotary(swiglu_mlp=True, scale_mlp=True), "block 0 has a SwiGLU: its MLP"),
    "rotary qk norm": (lambda: rotary(qk_norm=True), "block 0 with AttentionRope and Mlp"),
    "rotary without fused weights": (
        lambda: rotary(qkv_fused=False, num_kv_heads=1),
        "block 0 with AttentionRope and Mlp",
    ),
    "swiglu": (lambda: eva(swiglu_mlp=True, use_abs_pos_emb=True), "block 0 has a"),
    "inner norm": (lambda: eva(scale_mlp=True), "block 0 with EvaAttention and Mlp"),
    "qk norm": (lambda: vit(qk_norm=True), "block 0 with Attention and Mlp"),
    "parallel block": (
        lambda: vit(block_fn=timm.models.vision_transformer.ParallelThingsBlock),
        "block 0 is a ParallelThingsBlock",
    ),
    "max pooling": (lambda: vit(global_pool="max"), "global_pool='max'"),
    "norm before average": (lambda: vit(global_pool="avg", fc_norm=False), "around its avg"),
    "two norms": (two_norms, "with norms"),
    "two layers": (lambda: in_open_clip(vit(), nn.Linear(5, 5)), r"\(Linear, Linear\)"),
    "convnext": (
        lambda: in_open_clip(timm.create_model("convnext_atto")),
        "TimmModel with a ConvNeXt: it is not a plain transformer",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(legrad.UnsupportedModelError, match=message) as refusal:
        legrad.build("legrad", make())
    assert "supported: transformers over patch tokens" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_coca_inside_its_model_is_accepted() -> None:
    model = randomised(coca())
    assert isinstance(model, CLIP | CustomTextCLIP)
    images = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    embedding = legrad.build("legrad", model).encode(images).embedding
    expected = model.encode_image(images, normalize=True).detach()
    torch.testing.assert_close(embedding, expected)
