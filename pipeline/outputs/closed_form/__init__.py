"""Masks of bilinearly upsampled maps without their pixels."""
