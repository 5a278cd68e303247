"""The five methods of collecting episodes, side by side on one machine."""
