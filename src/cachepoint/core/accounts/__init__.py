"""What calls did and cost: records, the ledger, misses, shares, the summary."""
