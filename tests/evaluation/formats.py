"""Small files in the real formats."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.demo.quality import bundled_scenes


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
