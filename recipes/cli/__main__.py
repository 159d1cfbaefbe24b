"""The command `recipes` as `python -m lightning_recipes.recipes.cli`."""

import sys

from .front import main

sys.exit(main())
