"""The console in Debian's Chromium, by `make browser`; the pictures are in build/console."""
