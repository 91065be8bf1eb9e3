"""The checks and latency measurements that `tools/gpu_check.py` runs."""
