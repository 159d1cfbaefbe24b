"""Commands of `recipes` that train nothing, one file each."""
