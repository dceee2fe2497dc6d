"""vpnd: a userspace IPsec tunnel daemon for Linux gateways."""

__version__ = "0.1.0"
