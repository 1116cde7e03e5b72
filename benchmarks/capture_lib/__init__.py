"""What `capture.py` is made of: workloads, the clairvoyant bound, contenders, and the report."""
