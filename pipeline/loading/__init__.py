"""Images and their pseudo-masks for training: `from pipeline.loading import MaskDataset`."""

from pipeline.loading.batches import collate
from pipeline.loading.dataset import MaskDataset
from pipeline.loading.recipe import with_masks
from pipeline.loading.targets import decode_masks

__all__ = ["MaskDataset", "collate", "decode_masks", "with_masks"]
