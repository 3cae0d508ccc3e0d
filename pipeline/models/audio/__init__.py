"""Hearing: from a waveform to a vector in the joint space of a CLIP."""
