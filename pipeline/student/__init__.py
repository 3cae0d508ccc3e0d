"""What the masks are worth: a small network trained on them, next to one trained on the truth."""
