"""Random bytes for the parsers, through the engine's connections."""
