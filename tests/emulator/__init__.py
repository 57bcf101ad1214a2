"""Tests of the emulator. A package, so that files may have the names of other test files."""
