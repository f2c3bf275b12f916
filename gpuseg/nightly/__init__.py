"""One night after another: which segment is which, what changed, and whether it may be shown."""
