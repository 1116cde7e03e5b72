"""Agents: the middleware, their tools and their history."""
