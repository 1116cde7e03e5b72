"""What was looked up about models: the model table and the prices, each with its source.

Ids such as P2 are entries of docs/rules.md.
"""
