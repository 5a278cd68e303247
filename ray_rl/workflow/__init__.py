"""Orders of repair: what they are, and how far an episode's fixes follow one."""
