"""Small files in the real formats."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.demo.quality import bundled_scenes
from pipeline.demo.scenes import Scene
from pipeline.demo.sprites import CLASSES


def index_mask(scene: Scene) -> np.ndarray:
    """The classes of a scene of the demo as indices from 1, 0 where there is none."""
    index = np.zeros(scene.image.shape[:2], dtype=np.uint8)
    for name, mask in scene.masks.items():
        index[mask] = list(CLASSES).index(name) + 1
    return index


def write_mat(path: Path, count: int) -> None:
    """Scenes of the demo in the layout of gtsegs_ijcv.mat: column-major, cells by reference."""
    with h5py.File(path, "w") as file:
        refs = file.create_group("#refs#")
        cells: dict[str, list[Any]] = {"img": [], "gt": [], "target": [], "id": []}
        for i, scene in enumerate(bundled_scenes()[:count]):
            name = next(iter(scene.masks))
            mask = refs.create_dataset(f"m{i}", data=scene.masks[name].T.astype(np.uint8))
            cell = refs.create_dataset(f"c{i}", (1, 1), dtype=h5py.ref_dtype)
            cell[0, 0] = mask.ref
            codes = np.array([[ord(c)] for c in f"n{i:08d}"], dtype=np.uint16)
            cells["img"].append(refs.create_dataset(f"i{i}", data=scene.image.T).ref)
            cells["gt"].append(cell.ref)
            cells["target"].append(refs.create_dataset(f"t{i}", data=codes).ref)
            cells["id"].append(refs.create_dataset(f"d{i}", data=codes).ref)
        for name, references in cells.items():
            column = file.create_dataset(f"value/{name}", (count, 1), dtype=h5py.ref_dtype)
            for i, reference in enumerate(references):
                column[i, 0] = reference
