"""Pictures and pages, drawn from the run folder alone."""
