"""What `mutants.py` is made of: the changes, and the runs of the tests against them."""
