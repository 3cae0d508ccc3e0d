"""Bytes and the places that hold them."""
