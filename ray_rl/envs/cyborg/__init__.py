"""Real CybORG 2.1, the game of CAGE Challenge 2, driven as it is: found, identified, seeded, read and compared."""
