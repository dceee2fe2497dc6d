"""The documentation site: each generated page has all that it is about, and every link leads somewhere."""
