"""How good the masks are: counts that add up over shards."""
