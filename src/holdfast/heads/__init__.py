"""What a session is beside its events: its fields, its names, its config, its state."""
