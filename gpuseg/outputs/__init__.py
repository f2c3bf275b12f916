"""What leaves the house: published tables, stored models, manifest, report."""
