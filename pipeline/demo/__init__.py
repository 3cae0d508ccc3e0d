"""The embedded demo: a small CLIP, the scenes it was trained on, and how well LeGrad does on it."""
