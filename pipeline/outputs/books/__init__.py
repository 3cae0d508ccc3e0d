"""What the ledger is made of: who owns an output, what is committed, how far the run is."""
