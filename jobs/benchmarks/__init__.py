"""What `python jobs/benchmark.py` measures, one module a benchmark."""
