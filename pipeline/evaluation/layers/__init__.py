"""Studies of the layers."""
