"""What a run does around the model: its driver, its workers, the host, and a cluster on paper."""
