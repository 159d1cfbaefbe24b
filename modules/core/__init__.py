"""Parts that every other package uses: checks, errors, random streams, schedules, running means, feature capture."""
