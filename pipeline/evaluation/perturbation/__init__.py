"""Scores by what a model still sees."""
