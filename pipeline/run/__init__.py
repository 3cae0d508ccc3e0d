"""Who does which shard, and when."""
