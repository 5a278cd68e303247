"""Environments: the contract, the registry, and the environments themselves.

Importing this package makes CAGE-2 known to gymnasium, which ``gymnasium.make("ray_rl.envs:ray_rl/CAGE2-v0")`` does
too.
"""

import gymnasium

CAGE2_ID = "ray_rl/CAGE2-v0"

_MODULE = "ray_rl.envs.cage2.gymnasium_api"

if CAGE2_ID not in gymnasium.registry:
    gymnasium.register(CAGE2_ID, f"{_MODULE}:Cage2GymEnv", vector_entry_point=f"{_MODULE}:Cage2VectorEnv")
