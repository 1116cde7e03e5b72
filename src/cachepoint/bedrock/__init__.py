"""Bedrock's wire formats, the client wrapper, and the loaders of model rules and prices.

Knows boto3's shapes and imports no framework. Ids such as R3.9 are entries of docs/rules.md.
"""
