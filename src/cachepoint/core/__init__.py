"""The pure part: standard library only, no I/O, no clock, no environment, no warnings.

`now` is always a parameter, inputs are never mutated, and what leaves this floor is frozen.

Ids such as R3.9 are entries of docs/rules.md, which says where each fact comes from.
"""
