"""The commands of ``ray-rl``, one file each: flags in, calls into the package, a table out."""
