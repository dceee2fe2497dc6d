"""Imported first in the process that the daemons are forked from, so that they can be counted."""

import os

from tests.lab import counting

if counting.DAEMONS in os.environ:
    counting.start()
