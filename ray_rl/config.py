"""The typed configuration of a training run: one frozen model per concern, help text under each field.

A field's name is its flag (``--n-workers``) and its YAML key (``n_workers``); names are unique across the groups, so
both stay flat.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ray_rl.env_options import EnvOptions
from ray_rl.episodes import MIXED_RED_AGENT, PROTOCOL_STEPS, RED_AGENTS
from ray_rl.failures import UserError as UserError
from ray_rl.failures import suggest as suggest
from ray_rl.storage import Location, location
from ray_rl.workflow.orders import RANDOM_ORDER, order_name, parse_order
from ray_rl.workflow.rule import AlignmentRule

PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

CollectorName = Literal["ray-tasks", "ray-actors", "executor", "synchronous", "sequential"]
RuleSet = Literal["head", "leaderboard"]
TableName = Literal["stock", "corrected"]
ViewName = Literal["table", "winner", "memory", "raw"]
ActionSetName = Literal["all", "compact"]
Objective = Literal["return", "protocol"]
PolicyKind = Literal["mlp", "gru"]
CriticView = Literal["observation", "truth"]
DeviceName = Literal["cpu", "cuda"]
Precision = Literal["full", "mixed"]

ENVS_WITH_ORDERS = ("cage2", "cyborg")
"""Environments whose episodes can be asked to follow an order of repair."""


class _Group(BaseModel):
    """Base of all groups: immutable, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, defer_build=True)


def _canonical_order(given: Any) -> Any:
    """An order by its names, whatever way it was given."""
    text = str(given).strip()
    return RANDOM_ORDER if text.lower() == RANDOM_ORDER else order_name(parse_order(text))


def _known_place(name: str) -> str:
    location(name)  # complains about a scheme that nothing here can reach
    return name


def _known_resume(given: Any) -> Any:
    if given not in (True, False, "auto"):
        raise ValueError("must be true, false or auto")
    return given


Place = Annotated[str, BeforeValidator(str), AfterValidator(_known_place)]
"""A local path or a URL as text; `ray_rl.storage.location` makes a place of it."""
Resume = bool | Literal["auto"]
"""Whether a run goes on; auto: when its folder holds one."""


class EnvConfig(_Group):
    """Environment."""

    env: str = "cage2"
    """cage2 (built-in simulator), cyborg, latency, or any gymnasium id."""
    rules: RuleSet = "head"
    """CAGE-2 rule set: head is today's CybORG 2.1, leaderboard the version of the published table."""
    table: TableName = "stock"
    """Blue's table: stock as the organisers evaluate, corrected as the community mended it."""
    view: ViewName = "winner"
    """What Blue's policy sees: the 52-bit table, winner (scans and decoys noted besides), memory (all that the table
    and Blue's own actions tell), or raw (besides, which exploits the events behind the table show)."""
    actions: ActionSetName = "compact"
    """Blue's actions: all 145, or compact without those that cannot help."""
    red_agent: str = "B_lineAgent"
    """B_lineAgent, RedMeanderAgent, SleepAgent, or mixed."""
    episode_steps: PositiveInt = 100
    """Steps per episode, after which it is truncated."""
    cyborg_path: str | None = None
    """Folder of a CybORG 2.1 checkout, for --env cyborg."""
    latency_mean_s: PositiveFloat = 0.013
    """Mean wait of a step of --env latency, in seconds."""
    latency_max_s: PositiveFloat = 0.05
    """Longest wait of a step of --env latency, in seconds."""
    workflow: Annotated[str, BeforeValidator(_canonical_order)] | None = None
    """Order of repair to follow: the five host types, the most important first, with commas between them
    (op_server,enterprise,defender,op_host,user); or its index 0 to 119; or random: each episode draws one."""
    alignment_weight: NonNegativeFloat = 30.0
    """λ, reward for following the order in all fixes of an episode; the environment's own reward is logged apart."""
    alignment_bonus: NonNegativeFloat = 0.0
    """Reward of each fix that follows the order, besides."""
    alignment_penalty: NonNegativeFloat = 0.0
    """Cost of each fix that does not, besides."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        known = (*RED_AGENTS, MIXED_RED_AGENT)
        if self.red_agent not in known:
            raise ValueError(f"unknown red agent {self.red_agent!r}{suggest(self.red_agent, known)}")
        if self.latency_max_s <= self.latency_mean_s:
            raise ValueError("latency_max_s must be larger than latency_mean_s")
        if self.workflow is not None and self.env not in ENVS_WITH_ORDERS:
            raise ValueError(f"workflow needs env {' or '.join(ENVS_WITH_ORDERS)}, not {self.env}")
        return self

    @property
    def order(self) -> int | Literal["random"] | None:
        """Index of the order to follow, `RANDOM_ORDER` when each episode draws one, None without."""
        if self.workflow is None or self.workflow == RANDOM_ORDER:
            return None if self.workflow is None else RANDOM_ORDER
        return parse_order(self.workflow)

    @property
    def alignment(self) -> AlignmentRule | None:
        """What following the order is worth; None without an order."""
        if self.workflow is None:
            return None
        return AlignmentRule(self.alignment_weight, self.alignment_bonus, self.alignment_penalty)

    @property
    def options(self) -> EnvOptions:
        """What worker processes need of it."""
        return EnvOptions(
            env=self.env,
            rules=self.rules,
            table=self.table,
            view=self.view,
            actions=self.actions,
            alignment=self.alignment,
            cyborg_path=self.cyborg_path,
            latency_mean_s=self.latency_mean_s,
            latency_max_s=self.latency_max_s,
        )


class CollectConfig(_Group):
    """Collecting episodes."""

    collector: CollectorName = "ray-tasks"
    """How episodes are run."""
    n_workers: PositiveInt | None = None
    """Worker processes; none: one per CPU of this machine, or of the cluster."""
    episodes_per_chunk: PositiveInt | None = None
    """Episodes that one task runs; none: set from measured durations."""
    max_staleness: Count = 0
    """Updates that an episode's policy may lie behind the learner. 0 is exact and reproducible; 1 or more overlaps
    collecting with learning."""
    watchdog_s: PositiveFloat = 300.0
    """Seconds without any finished chunk after which the run stops and names what is pending."""
    autoscale_cpus: Count = 0
    """Most CPUs to ask the autoscaler of a cluster for at once, as far as there are episodes for them; given back at
    the end. 0: for twice the CPUs that are there, again and again, as long as episodes wait."""
    address: str | None = None
    """Address of a running Ray cluster, or auto; none: a Ray of its own on this machine."""


class PolicyConfig(_Group):
    """Networks."""

    policy: PolicyKind = "mlp"
    """mlp: acts on the latest observation. gru: remembers the episode, its own actions included, in a GRU below the
    hidden layers; learns from whole episodes."""
    hidden_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 64)
    """Units of each hidden layer; actor and critic have their own network of this size, with ReLU."""
    memory_size: PositiveInt = 64
    """Units of the memory of --policy gru; actor and critic have their own."""
    critic_sees: CriticView = "observation"
    """What the critic sees in training: the actor's observation, or truth: besides, the true state, which the learner
    of the built-in simulator plays out of each episode's seed and actions. The actor never sees it."""


class PpoConfig(_Group):
    """Learning."""

    episodes_per_update: PositiveInt = 200
    """Episodes that one update learns from."""
    epochs: PositiveInt = 6
    """Passes over an update's batch."""
    minibatches: PositiveInt = 4
    """Slices of the batch, newly shuffled in every pass."""
    learning_rate: PositiveFloat = 1e-3
    """Adam's step size at the first update."""
    final_learning_rate: NonNegativeFloat = 5e-5
    """Adam's step size at the last update; linear in between."""
    objective: Objective = "return"
    """What is maximised: the return, or protocol: the sum of the returns over 30, 50 and 100 steps, that is, rewards
    weighted 3, 2 and 1 in one episode of 100 steps. Returns are logged as the environment gives them."""
    discount: Fraction = 0.99
    """γ, discount per step."""
    gae_lambda: Fraction = 0.95
    """λ of generalised advantage estimation."""
    clip_range: PositiveFloat = 0.2
    """ε of the clipped objective."""
    value_clip_range: PositiveFloat | None = None
    """Clips the change of values, in units of normalised returns; none: off."""
    value_coefficient: NonNegativeFloat = 0.5
    """Weight of the value loss."""
    entropy_coefficient: NonNegativeFloat = 0.01
    """Weight of the entropy bonus at the first update."""
    final_entropy_coefficient: NonNegativeFloat = 0.001
    """Weight of the entropy bonus at the last update; linear in between."""
    max_gradient_norm: PositiveFloat = 0.5
    """Gradients of actor and critic are each scaled down to this norm."""
    target_kl: PositiveFloat | None = None
    """Ends the actor's passes of an update once the mean KL divergence of a pass exceeds this; none: off."""
    normalise_advantages: bool = True
    """Advantages of a batch are brought to mean 0 and deviation 1."""
    normalise_returns: bool = True
    """The critic learns returns scaled by their running mean and deviation."""
    n_learners: PositiveInt = 1
    """Learner processes that share the episodes of an update and add up their gradients: one learner's result, but for
    rounding. Needs a collector on Ray."""
    learner_threads: PositiveInt = 2
    """Threads of each learner. With 2 the critic learns beside the actor; 1 and 2 give the same bits. More than 3 share
    out matrix products, which pays for large networks only and may round differently."""
    learner_device: DeviceName = "cpu"
    """What the learner computes on: cpu, or cuda: an NVIDIA GPU, of which each learner has one to itself."""
    learner_precision: Precision = "full"
    """full: float32. mixed: what the hidden layers multiply is rounded to bfloat16; pays for networks of 128 units
    and more, on a GPU or a CPU that multiplies such numbers itself (AVX-512 BF16, AMX)."""

    @property
    def gpus_per_learner(self) -> int:
        """GPUs that each learner has to itself."""
        return 1 if self.learner_device == "cuda" else 0


class GateConfig(_Group):
    """When an order of repair counts as learned."""

    until_compliance: Fraction | None = None
    """Training ends as soon as the mean compliance of an update's episodes reaches this; none: it goes on."""
    compliance_patience: PositiveInt = 25
    """With until_compliance, training also ends when compliance has not gained 0.01 in this many updates."""
    gate_after_updates: Count = 0
    """Updates that are done whatever the compliance."""


class EvaluateConfig(_Group):
    """Evaluation during training."""

    evaluate_every: Count = 50
    """Updates between evaluations; 0: never."""
    evaluate_episodes: PositiveInt = 100
    """Episodes of an evaluation, on seeds that training never uses."""
    evaluate_sampled: bool = False
    """Draw the actions of an evaluation from the policy, as in training, instead of taking the likeliest."""


class RunConfig(_Group):
    """The run."""

    total_episodes: PositiveInt = 40_000
    """Episodes to train on."""
    seed: Count = 0
    """Decides everything random in the run."""
    run_dir: Place | None = None
    """Folder of the run, or a place in a storage that fsspec knows (s3://BUCKET/RUN, gs://BUCKET/RUN); none:
    runs/ENV_RED-AGENT_SEED_TIME."""
    resume: Annotated[Resume, BeforeValidator(_known_resume)] = False
    """Go on with the run in --run-dir where its last checkpoint stopped; auto: if there is one, else start it."""
    start_from: Place | None = None
    """A run or checkpoint whose networks this run starts from; counters, schedules and Adam's moments start anew."""
    max_failed_episodes: Count = 0
    """Episodes whose environment may fail before the run ends. One that fails runs again in an environment built anew;
    when it fails again, an episode of another seed takes its place. 0: the first failure ends the run."""
    checkpoint_every: PositiveInt = 25
    """Updates between checkpoints; one is always written at the end."""
    keep_checkpoints: PositiveInt = 3
    """Checkpoints kept; older ones are removed."""
    profile: Path | None = None
    """File for a trace of what driver, learner and workers did when; https://ui.perfetto.dev and chrome://tracing open
    it."""


class TrainConfig(_Group):
    """A training run, complete."""

    env: EnvConfig = EnvConfig()
    collect: CollectConfig = CollectConfig()
    policy: PolicyConfig = PolicyConfig()
    ppo: PpoConfig = PpoConfig()
    gate: GateConfig = GateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        steps = self.ppo.episodes_per_update * self.env.episode_steps
        if self.ppo.minibatches > steps:
            raise ValueError(f"minibatches ({self.ppo.minibatches}) exceed the {steps} steps of an update")
        if self.policy.critic_sees == "truth" and self.env.env != "cage2":
            raise ValueError(
                f"critic_sees truth needs env cage2, whose episodes can be played again, not {self.env.env}"
            )
        if self.policy.policy == "gru" and self.ppo.minibatches > self.ppo.episodes_per_update:
            raise ValueError(
                f"minibatches ({self.ppo.minibatches}) exceed the {self.ppo.episodes_per_update} episodes of an "
                "update: policy gru learns from whole episodes"
            )
        if self.ppo.n_learners > self.ppo.episodes_per_update:
            raise ValueError(
                f"n_learners ({self.ppo.n_learners}) exceeds the {self.ppo.episodes_per_update} episodes of an update"
            )
        if self.ppo.n_learners > 1 and not self.collect.collector.startswith("ray"):
            raise ValueError(f"n_learners needs collector ray-tasks or ray-actors, not {self.collect.collector}")
        if self.ppo.n_learners > 1 and self.policy.policy == "gru":
            raise ValueError("n_learners needs policy mlp: gru learns from whole episodes, which minibatches would cut")
        if self.ppo.learner_precision == "mixed" and self.policy.policy == "gru":
            raise ValueError("learner_precision mixed needs policy mlp: a GRU learns in float32")
        if self.gate.until_compliance is not None and self.env.workflow is None:
            raise ValueError("until_compliance needs a workflow to comply with")
        if self.ppo.objective == "protocol" and self.env.episode_steps != PROTOCOL_STEPS[-1]:
            raise ValueError(
                f"objective protocol needs episode_steps {PROTOCOL_STEPS[-1]}, the longest of the protocol's, "
                f"not {self.env.episode_steps}"
            )
        if self.ppo.episodes_per_update > self.run.total_episodes:
            raise ValueError(
                f"episodes_per_update ({self.ppo.episodes_per_update}) exceeds total_episodes "
                f"({self.run.total_episodes}): no update would ever happen"
            )
        return self

    @property
    def n_updates(self) -> int:
        """Updates of the whole run; a rest of episodes too small for one is not collected."""
        return self.run.total_episodes // self.ppo.episodes_per_update

    def to_yaml(self) -> str:
        """Write as flat YAML, grouped under comments, as `from_mapping` reads it."""
        lines = []
        for name in type(self).model_fields:
            group = getattr(self, name)
            lines.append(f"# {type(group).__doc__}")
            lines.append(yaml.safe_dump(group.model_dump(mode="json"), sort_keys=False))
        return "\n".join(lines)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str) -> Self:
        """Build from flat keys, as YAML files hold them.

        Args:
            values: Field names and values; missing ones take their defaults.
            source: Where they come from, for messages.

        Raises:
            UserError: For an unknown key or a value that does not fit.
        """
        groups: dict[str, dict[str, Any]] = {name: {} for name in cls.model_fields}
        home = field_homes()
        for key, value in values.items():
            if key not in home:
                raise UserError(f"{source}: unknown key {key!r}{suggest(key, home)}")
            groups[home[key]][key] = value
        try:
            return cls.model_validate(groups)
        except ValidationError as error:
            raise UserError(f"{source}: {describe(error)}") from error


def field_homes() -> dict[str, str]:
    """Each field's name with the name of the group of `TrainConfig` that holds it."""
    homes: dict[str, str] = {}
    for group_name, group in TrainConfig.model_fields.items():
        group_type = group.annotation
        assert isinstance(group_type, type)
        assert issubclass(group_type, BaseModel)
        for name in group_type.model_fields:
            assert name not in homes, f"two groups have a field {name}"
            homes[name] = group_name
    return homes


def describe(error: ValidationError) -> str:
    """The first problem that pydantic found with each field, naming the field and the value."""
    problems: dict[str, str] = {}
    for problem in error.errors():
        names = [str(name) for name in problem["loc"] if isinstance(name, str)]  # numbers are places in a tuple
        where = names[-1] if names else ""
        is_group = len(names) == 1 and where in field_groups()
        text = problem["msg"].removeprefix("Value error, ")
        given = (
            f" (given: {problem['input']!r})" if where and not isinstance(problem["input"], dict | BaseModel) else ""
        )
        problems.setdefault(where, f"{where}: {text}{given}" if where and not is_group else text)
    return "; ".join(problems.values())


def field_groups() -> tuple[str, ...]:
    """Names of the groups of `TrainConfig`."""
    return tuple(TrainConfig.model_fields)


def load_yaml(path: Location) -> TrainConfig:
    """Read a configuration file.

    Args:
        path: A YAML file of flat keys.

    Raises:
        UserError: When it cannot be read or does not hold a configuration.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{path}: expected 'key: value' lines, found {type(values).__name__}")
    return TrainConfig.from_mapping(values or {}, str(path))
