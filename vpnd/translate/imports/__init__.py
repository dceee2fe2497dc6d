"""Other daemons' files, read for vpnd: one module a format, and what is made of them."""
