"""How the emulated service answers, whole and streamed."""
