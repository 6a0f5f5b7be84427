"""Training: the loop, what it needs at each step, and what it leaves in the run folder."""
