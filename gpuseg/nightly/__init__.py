"""From one night to the next: what changed, and whether it may be published."""
