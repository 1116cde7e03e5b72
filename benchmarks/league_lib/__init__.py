"""What `league.py` is made of: static plans, rows, standings, and the report."""
