"""Measurements: vpnd and strongSwan side by side, in one run, on the same processors."""
