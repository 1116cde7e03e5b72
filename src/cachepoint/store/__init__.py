"""Where learned traffic lives: in memory by default."""
