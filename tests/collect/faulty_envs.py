"""A gymnasium environment that misbehaves where a test has planted a fault; ``faulty_envs:Faulty-v0``.

Worker processes find faults in a folder of small files, one per episode, because nothing else reaches every kind of
worker: the folder is named by an environment variable that must be set before the workers start.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from ray_rl.episodes import EpisodeRequest

ENV_ID = "faulty_envs:Faulty-v0"
FOLDER_VARIABLE = "FAULTY_ENVS_FOLDER"
WIDE_ID = "faulty_envs:Wide-v0"
OBSERVATION_SIZE = 4
WIDE_SIZE = 2**16
N_ACTIONS = 3

FaultKind = Literal["raise", "nan-observation", "nan-reward", "shape", "hang", "hold", "dawdle", "die"]


@dataclass(frozen=True)
class Faults:
    """The folder of faults.

    Attributes:
        folder: Holds one file per faulty episode.
    """

    folder: Path

    def plant(self, request: EpisodeRequest, kind: FaultKind, at_step: int = 2, *, once: bool = False) -> None:
        """Let an episode fail at a step (0: in reset); `once`: only the first time that it is run."""
        self._file(request.seed).write_text(f"{kind} {at_step} {'once' if once else 'always'}")

    def due(self, seed: int, step: int) -> str | None:
        """The kind of the fault that is due now; one that happens once is gone afterwards."""
        file = self._file(seed)
        try:
            kind, at_step, how_often = file.read_text().split()
        except FileNotFoundError:  # none was planted, or it has just been mended
            return None
        if step != int(at_step):
            return None
        if how_often == "once":
            file.unlink()
        return kind

    def dawdler(self, request: EpisodeRequest) -> int:
        """Number of the process that dawdles over an episode."""
        return int(self._mark(request.seed).read_text())

    def hurry(self, request: EpisodeRequest) -> None:
        """Let a dawdling episode go on."""
        self._mark(request.seed).unlink()

    def dawdle(self, seed: int) -> None:
        """Wait until somebody says `hurry`."""
        mark = self._mark(seed)
        mark.write_text(str(os.getpid()))
        while mark.exists():
            threading.Event().wait(0.05)

    def clear(self) -> None:
        """Mend everything."""
        for file in self.folder.iterdir():
            file.unlink()

    def _file(self, seed: int) -> Path:
        return self.folder / str(seed % 2**32)

    def _mark(self, seed: int) -> Path:
        return self._file(seed).with_suffix(".dawdler")


class Faulty(gymnasium.Env[Any, int]):
    """A random walk that actions push; episodes end by themselves after 4 steps or more, unless a fault is planted."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float32)
        self.action_space = spaces.Discrete(N_ACTIONS)
        self._seed = 0
        self._step = 0
        self._position = np.zeros(OBSERVATION_SIZE)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._seed = seed or 0
        self._step = 0
        self._position = self.np_random.normal(size=OBSERVATION_SIZE)
        return self._seen(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._step += 1
        self._position = self._position + self.np_random.normal(size=OBSERVATION_SIZE) + 0.1 * action
        ended = self._step >= 4 and bool(self.np_random.random() < 0.2)
        seen = self._seen()
        reward = np.nan if seen is None else float(self._position.sum())
        return self._position.astype(np.float32) if seen is None else seen, reward, ended, False, {}

    def _seen(self) -> Any:
        """The observation, or what a fault makes of it; None stands for a fault of the reward."""
        match Faults(Path(os.environ[FOLDER_VARIABLE])).due(self._seed, self._step):
            case "raise":
                raise ValueError(f"no step {self._step} today")
            case "nan-observation":
                return np.full(OBSERVATION_SIZE, np.nan, dtype=np.float32)
            case "nan-reward":
                return None
            case "shape":
                return np.zeros(OBSERVATION_SIZE + 1, dtype=np.float32)
            case "hang":
                threading.Event().wait()
            case "hold":  # until it is mended
                while Faults(Path(os.environ[FOLDER_VARIABLE])).due(self._seed, self._step):
                    threading.Event().wait(0.05)
            case "dawdle":
                Faults(Path(os.environ[FOLDER_VARIABLE])).dawdle(self._seed)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
        return self._position.astype(np.float32)


class Wide(gymnasium.Env[Any, int]):
    """Sees a quarter of a megabyte in each step, which fills object stores."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (WIDE_SIZE,), np.float32)
        self.action_space = spaces.Discrete(N_ACTIONS)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._seen(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._seen(), float(action), False, False, {}

    def _seen(self) -> Any:
        return np.full(WIDE_SIZE, self.np_random.normal(), dtype=np.float32)


gymnasium.register("Wide-v0", Wide, disable_env_checker=True)
gymnasium.register("Faulty-v0", Faulty, disable_env_checker=True)
