"""Write what the code of FunnyBirds' authors scores on small synthetic birds.

It is run beside ours, from a checkout of visinf/funnybirds-framework at 1350bbe, on a CPU and with
this project's own environment (and requests and tqdm, which it has by way of others):

    PYTHON -m tests.reference.make_funnybirds_reference CHECKOUT funnybirds.npz

from the root of this project, whose tests draw the birds. Attributions are multiples of 1/64, so
that sums are the same in float32 and float64.
"""

import base64
import json
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch

from tests.pipeline.evaluation.funnybirds.birds import Toy, World

COMMIT = "1350bbe"
CLASSES = [
    (0, 0, 0, 0, 0), (0, 0, 1, 1, 1), (1, 1, 0, 0, 2), (0, 1, 1, 0, 1), (2, 0, 0, 3, 1),
    (0, 0, 2, 2, 2), (3, 2, 3, 8, 5), (0, 1, 2, 0, 5),
]  # fmt: skip
BIRDS = [(i % len(CLASSES), i % 5) for i in range(2 * len(CLASSES))]
GRID, SIDE = 8, 64


class Model(torch.nn.Module):
    """Logits are sums of what is visible; see `Toy`."""

    def __init__(self, toy):
        super().__init__()
        self.toy = toy

    def forward(self, images):
        pixels = (images * 255).round().to(torch.uint8)
        return torch.from_numpy(self.toy.logits(list(pixels))[0]).float()


def imported(checkout):
    """The authors' modules, whose other explainers need captum, and whose renderer Python 3.8."""
    base64.decodestring = base64.decodebytes
    for name in ("captum", "captum.attr"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["captum.attr"].LayerAttribution = None
    sys.path.insert(0, str(checkout))
    import evaluation_protocols as protocols
    from explainers.explainer_wrapper import AbstractAttributionExplainer

    return protocols, AbstractAttributionExplainer


def run(checkout, world, toy, maps, root):
    """Every score, and the curves of those that depend on a threshold."""
    protocols, base = imported(checkout)
    numbers = {world.at(f"test/0/{i:06d}.png").numpy().tobytes(): i for i in range(len(BIRDS))}

    class Stored(base):
        def explain(self, image, target):
            pixels = (image[0] * 255).round().to(torch.uint8).numpy().tobytes()
            found = torch.from_numpy(maps[numbers[pixels], int(target)])[None, None]
            return torch.nn.functional.interpolate(found, (SIDE, SIDE))

    args = types.SimpleNamespace(data=str(root), gpu=None, batch_size=4, nr_itrs=2501)
    model, explainer = Model(toy), Stored(None)
    curves = {
        "csdc": protocols.controlled_synthetic_data_check_protocol(model, explainer, args),
        "pc": protocols.preservation_check_protocol(model, explainer, args),
        "dc": protocols.deletion_check_protocol(model, explainer, args),
        "d": protocols.distractibility_protocol(model, explainer, args),
    }
    thresholds = list(curves["csdc"])
    return {
        "accuracy": protocols.accuracy_protocol(model, args),
        "bi": protocols.background_independence_protocol(model, args),
        "sd": protocols.single_deletion_protocol(model, explainer, args),
        "ts": protocols.target_sensitivity_protocol(model, explainer, args),
        "thresholds": thresholds,
        **{name: [float(curve[t]) for t in thresholds] for name, curve in curves.items()},
    }


def attributions(generator):
    """Kind → [bird, class, 8, 8]."""
    shape = (len(BIRDS), len(CLASSES), GRID, GRID)
    noise = generator.integers(-64, 65, shape)
    positive = generator.integers(0, 65, shape)
    sparse = positive * (generator.random(shape) < 0.2)
    kinds = {"signed": noise + 8, "positive": positive, "sparse": sparse, "negative": -positive}
    kinds["agnostic"] = np.repeat(positive[:, :1], len(CLASSES), axis=1)
    return {name: (values / 64).astype(np.float32) for name, values in kinds.items()}


def main(checkout, path):
    """Draw the birds, run the authors' protocols on them, and keep what they were given."""
    torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # the code moves what it reads to a GPU
    described = ["git", "-C", checkout, "rev-parse", "--short", "HEAD"]
    if (found := subprocess.check_output(described, text=True).strip()) != COMMIT:
        raise SystemExit(f"the checkout is {found}, not {COMMIT}")
    generator = np.random.default_rng(20240408)
    weights = generator.integers(-16, 65, (len(CLASSES), 5)) / 16
    objects = generator.integers(-8, 9, (len(CLASSES), 4)) / 16
    world = World(CLASSES, BIRDS)
    toy = Toy(world, weights, objects)
    arrays, scores = {"weights": weights, "objects": objects}, {}
    with tempfile.TemporaryDirectory() as folder:
        world.write(Path(folder))
        for kind, maps in attributions(generator).items():
            arrays[f"maps/{kind}"] = maps
            scores[kind] = run(checkout, world, toy, maps, Path(folder))
    about = {"commit": COMMIT, "classes": CLASSES, "birds": BIRDS, "scores": scores}
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
