"""Every method against slow references, and against numbers worked out by hand."""

import math
from functools import partial

import pytest
import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.layers.norm import LayerNorm
from timm.models.eva import Eva, checkpoint_filter_fn
from torch import Tensor

import legrad
from legrad.towers.open import open_tower
from tests.legrad.baselines import formulas
from tests.legrad.conftest import EMBED_DIM, VISION, Case, in_open_clip, make_case

DEPTH = 4
REFERENCES = {
    "raw_attention": ({}, formulas.raw_attention),
    "rollout": ({}, formulas.rollout),
    "gradcam": ({"layers": [1]}, formulas.gradcam),
    "gradcam without cls": (
        {"layers": [1], "with_cls": False},
        lambda done, text: formulas.gradcam(done, text, first=1),
    ),
    "gradcam of all layers": (
        {"layers": DEPTH},
        lambda done, text: sum(formulas.gradcam(done, text, i) for i in range(DEPTH)) / DEPTH,
    ),
    "gradcam of all layers without cls": (
        {"layers": DEPTH, "with_cls": False},
        lambda done, text: (
            sum(formulas.gradcam(done, text, i, 1) for i in range(DEPTH - 1)) / (DEPTH - 1)
        ),
    ),
    "attention_cam": ({}, formulas.attention_cam),
    "attention_cam te": ({"form": "te"}, formulas.attention_cam_te),
    "chefer_cam": ({}, formulas.chefer_cam),
    "chefer_cam last": (
        {"layers": 1},
        lambda done, text: formulas.chefer_cam(done, text, start=DEPTH - 1),
    ),
    "transformer_attribution": ({}, formulas.transformer_attribution),
    "partial_lrp": ({}, formulas.partial_lrp),
    "text_span": ({}, formulas.text_span),
    "maskclip": ({}, formulas.maskclip),
    "sclip": ({}, formulas.sclip),
    "naclip": ({}, formulas.naclip),
    "gem": ({}, formulas.gem),
    "gem of two layers": ({"layers": 2}, lambda done, text: formulas.gem(done, text, last=2)),
}

RELEVANCE = ("transformer_attribution", "partial_lrp")


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(
        size=(8, 12), dtype=torch.float64, layers=DEPTH, ls_init_value=0.4, quick_gelu=True
    )


@pytest.fixture(scope="module")
def passes(case: Case) -> list[formulas.Pass]:
    visual = case.model.visual
    positions = open_tower(visual).placed((2, 3)).detach()
    return [formulas.run(visual, image, positions) for image in case.images]


def rotary_twin(visual: VisionTransformer) -> TimmModel:
    """The tower with the weights of `visual` and rotary positions, as Perception Encoders have.

    timm reads their published weights, which are named as open_clip's own, by the function used.
    """
    trunk = Eva(
        img_size=VISION["image_size"], patch_size=VISION["patch_size"], num_classes=EMBED_DIM,
        embed_dim=VISION["width"], num_heads=VISION["width"] // VISION["head_width"], depth=DEPTH,
        global_pool="token", attn_type="rope", use_pre_transformer_norm=True, init_values=1.0,
        use_rot_pos_emb=True, rope_grid_offset=1.0, rope_grid_indexing="xy", ref_feat_shape=(4, 4),
        norm_layer=partial(LayerNorm, eps=1e-5),
    )  # fmt: skip
    named = {f"visual.{name}": tensor for name, tensor in visual.state_dict().items()}
    trunk.load_state_dict(checkpoint_filter_fn(named, trunk))
    return in_open_clip(trunk).double().eval()


@pytest.mark.parametrize("name", [name for name in REFERENCES if name not in RELEVANCE])
def test_equals_its_formula_under_rotary_positions(name: str) -> None:
    case = make_case(size=(8, 12), dtype=torch.float64, layers=DEPTH, ls_init_value=0.4)
    visual = case.model.visual
    positions = open_tower(visual).placed((2, 3)).detach()
    options, formula = REFERENCES[name]
    model = rotary_twin(visual)
    raw = legrad.build(name.partition(" ")[0], model, **options)(*case.arguments)
    for query, image in enumerate(case.image_index.tolist()[:3]):
        done = formulas.run(visual, case.images[image], positions, rotary=True)
        embedding = legrad.build("legrad", model).encode(case.images[image : image + 1]).embedding
        torch.testing.assert_close(embedding[0], done.embedding.detach(), rtol=1e-6, atol=1e-7)
        expected = formula(done, case.text[query]).detach()
        # timm's sines and cosines are of float32.
        atol = 1e-5 * float(expected.abs().amax())
        torch.testing.assert_close(raw[query].flatten(), expected, rtol=1e-5, atol=atol)


def close(actual: Tensor, expected: Tensor) -> None:
    expected = expected.detach()
    torch.testing.assert_close(
        actual, expected, rtol=1e-7, atol=1e-8 * float(expected.abs().amax())
    )


@pytest.mark.parametrize("name", REFERENCES)
def test_equals_its_formula(name: str, case: Case, passes: list[formulas.Pass]) -> None:
    options, formula = REFERENCES[name]
    raw = legrad.build(name.partition(" ")[0], case.model, **options)(*case.arguments)
    for query, image in enumerate(case.image_index.tolist()):
        close(raw[query].flatten(), formula(passes[image], case.text[query]))


def test_lrp_equals_its_formula(case: Case, passes: list[formulas.Pass]) -> None:
    raw = legrad.build("lrp", case.model)(*case.arguments)
    assert raw.shape == (6, 8, 12)
    for query, image in enumerate(case.image_index.tolist()):
        expected = formulas.lrp(passes[image], case.text[query], case.images[image])
        close(raw[query], expected)


def test_text_span_with_a_background(case: Case) -> None:
    """The mean map of other texts is subtracted, before anything is cut off."""

    def maps(text: Tensor, **options: Tensor) -> Tensor:
        index = torch.zeros(len(text), dtype=torch.long)
        return legrad.build("text_span", case.model, **options)(case.images, text, index)

    background = case.text[3:]
    expected = maps(case.text[:1]) - maps(background).mean(0, keepdim=True)
    close(maps(case.text[:1], background=background), expected)


ROOT = math.sqrt(2.5)
NEAR = math.e / (1 + math.e)
MIXED = 2 * NEAR * (1 - NEAR) / (NEAR**2 + (1 - NEAR) ** 2)
SELF = math.e / (math.e + math.exp(MIXED))
GEM = (1 + (SELF + 1) / 3, (2 - SELF) / 3)
BY_HAND = {
    "raw_attention": 1 / 2,
    "rollout": 1 / 4,
    "gradcam": 0.3 / ROOT,
    "attention_cam": 0.075 / ROOT,
    "attention_cam te": 0.45 / ROOT,
    "chefer_cam": 0.45 / ROOT,
    "partial_lrp": 0.125,
    "transformer_attribution": 0.05625 / ROOT,
    "text_span": 0.5 / ROOT,
    "maskclip": 1.0,
    "sclip": 4 / math.sqrt(20),
    "naclip": 2 * NEAR / math.sqrt(2 + 2 * (2 * NEAR - 1) ** 2),
    "gem": GEM[0] / math.hypot(*GEM),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_equals_an_example_worked_by_hand(name: str) -> None:
    """One block, one head, CLS x_c = [1, 1, −1, −1] and one patch x_p = [1, −1, 1, −1].

    Each is its own LayerNorm. With W_q = W_k = 0, W_v = W_o = 1 and a silent MLP, A is 1/2
    everywhere and V = x, so that z_c = [2, 1, −1, −2] and z_p = [2, −1, 1, −2]. CLS has σ = √2.5
    and u = z_c / √2.5 of length 2. For t = x_p / 2, ∂s/∂z_c = g = [0.15, −0.3, 0.3, −0.15] / √2.5:

        ∂s/∂A_{c,p} = ⟨g, x_p⟩ = 0.9 / √2.5      ∂s/∂A_{c,c} = ⟨g, x_c⟩ = −0.3 / √2.5

    and 0 in the row of the patch. Relevance: t̂ shares 1 between the channels 0 and 3 of u, where
    both are of one sign (1 to each if every sign has a denominator of its own, else 1/2);
    W_proj = 1 passes on that of the positive channel 0 alone. Half of it goes to attention, of
    that half to the patch, for O_c = (x_c + x_p) / 2, and half of that to A and not to V.
    NACLIP's patch attends to itself by e / (1 + e) = p; GEM's by p, and once more after mixing.
    """
    visual = VisionTransformer(
        image_size=1, patch_size=1, width=4, layers=1, heads=1, mlp_ratio=1, output_dim=4,
        no_ln_pre=True,
    ).double()  # fmt: skip
    patch = torch.tensor([1.0, -1, 1, -1], dtype=torch.float64)
    block = visual.transformer.resblocks[0]
    with torch.no_grad():
        visual.conv1.weight.zero_()
        visual.class_embedding.zero_()
        visual.positional_embedding.copy_(torch.stack([torch.tensor([1.0, 1, -1, -1]), patch]))
        visual.proj.copy_(torch.eye(4))
        block.attn.in_proj_weight.copy_(torch.cat([torch.zeros(8, 4), torch.eye(4)]))
        block.attn.in_proj_bias.zero_()
        block.attn.out_proj.weight.copy_(torch.eye(4))
        block.attn.out_proj.bias.zero_()
        block.mlp.c_proj.weight.zero_()
        block.mlp.c_proj.bias.zero_()

    method, _, form = name.partition(" ")
    explainer = legrad.build(method, visual, **({"form": form} if form else {}))
    image = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    raw = explainer(image, patch[None] / 2, torch.tensor([0]))

    assert float(raw) == pytest.approx(BY_HAND[name], rel=1e-4)  # LayerNorm's eps
