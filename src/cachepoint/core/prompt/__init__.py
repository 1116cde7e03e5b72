"""A request as blocks in wire order: what it is, how it is read, how many tokens it may be."""
