"""Frozen values that every later layer speaks; they know no wire format and no clock."""
