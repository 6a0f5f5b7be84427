"""Pictures: of a run, and of one clip in an exported network."""
