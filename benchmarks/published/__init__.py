"""Beside the published package."""
