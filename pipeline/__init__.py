"""Data in, data out: shards, prompts, masks, schema, ledger, evaluation."""
