"""From one night to the next: which segments go on, what changed, and whether to publish."""
