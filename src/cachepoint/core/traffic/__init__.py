"""What is learned from traffic: boundaries seen, how they come back, entries believed alive, waste."""
