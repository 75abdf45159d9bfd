"""What a pool does, counted and shown."""
