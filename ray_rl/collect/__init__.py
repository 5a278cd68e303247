"""Collectors: five ways of running episodes somewhere and handing chunks over as they finish."""
