"""Bedrock's wire formats, the client wrapper, and the loaders of model rules and prices.

Knows boto3's shapes and imports no framework.
"""
