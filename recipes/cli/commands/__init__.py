"""Commands of `recipes` that do not train, one file each."""
