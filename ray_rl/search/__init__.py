"""The search for the order of repair whose defender does best."""
