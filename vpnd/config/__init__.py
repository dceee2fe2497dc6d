"""TOML files to policies, with the place of every error."""
