"""What decides an environment, in the form in which it travels to worker processes."""

from __future__ import annotations

from dataclasses import dataclass

from ray_rl.workflow.rule import AlignmentRule


@dataclass(frozen=True, slots=True)
class EnvOptions:
    """What `ray_rl.config.EnvConfig` says of the environment itself, validated.

    A process that runs episodes reads this without the library that validates configurations. Whatever belongs to an
    episode (attacker, steps, order of repair) is in its request.

    Attributes:
        env: Name of the environment, or a gymnasium id.
        rules: CAGE-2 rule set.
        table: Blue's table.
        view: What Blue's policy sees.
        actions: Blue's actions.
        alignment: What following an order is worth; None where episodes are not asked to follow one.
        cyborg_path: Folder of a CybORG checkout.
        latency_mean_s: Mean wait of a step of the environment that waits, in seconds.
        latency_max_s: Its longest wait, in seconds.
    """

    env: str
    rules: str
    table: str
    view: str
    actions: str
    alignment: AlignmentRule | None
    cyborg_path: str | None
    latency_mean_s: float
    latency_max_s: float
