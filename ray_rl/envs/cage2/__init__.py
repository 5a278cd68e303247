"""CAGE Challenge 2: the compiled simulator, the plain-Python step that explains it, and Blue's views of it."""
