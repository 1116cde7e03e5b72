"""What the emulated service refuses, in its own words."""
