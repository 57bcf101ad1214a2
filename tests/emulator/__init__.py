"""The emulator. A package, so that its test files may bear names that others bear too."""
