"""`nn.Module`s and pure functions that recipes are built of. Imports nothing else of this project."""
