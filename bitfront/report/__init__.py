"""What a finished study looks like: a page, a table for the terminal, a list of points."""
