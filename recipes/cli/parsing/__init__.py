"""Reading, merging and checking of recipe files and options."""
