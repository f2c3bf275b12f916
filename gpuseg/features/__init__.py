"""The table as numbers: column roles, decisions with reasons, the fitted encoder."""
