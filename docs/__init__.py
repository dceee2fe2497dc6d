"""The documentation site (`make docs`): pages written by hand, pages generated from the code, the build."""
