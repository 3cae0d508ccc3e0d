"""The masks of a run in the formats that other tools train from."""
