"""A trained model as one file for elsewhere: made, held against the run, described."""
