"""Other products' configurations: the other side written for them, and theirs read for ours."""
