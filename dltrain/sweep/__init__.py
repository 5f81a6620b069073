"""Sweeps: from overrides with several values to jobs, their processes and their summary."""
