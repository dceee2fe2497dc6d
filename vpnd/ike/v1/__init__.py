"""IKEv1: main and aggressive mode, quick mode, informational exchanges (RFC 2407, 2408, 2409)."""
