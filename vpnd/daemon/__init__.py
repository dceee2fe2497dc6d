"""The process: every effect on the machine, and the wiring of all layers into one gateway."""
