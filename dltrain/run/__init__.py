"""The run folder: its making, its record, its checkpoints, and what the terminal shows meanwhile."""
