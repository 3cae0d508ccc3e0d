"""Scores by the parts of FunnyBirds."""
