"""What `tools/gpu_check.py` runs: `checks`, `latency`, and what both need."""
