"""Recipe files and options: how they are read, merged and checked."""
