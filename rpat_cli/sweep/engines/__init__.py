"""Where trials run. Every engine runs the same commands and leaves the same folders."""
