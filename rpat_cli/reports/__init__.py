"""What a run found: as JSON, as tables on the screen, and as one HTML page."""
