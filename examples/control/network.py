"""CartPole: a policy that balances the ordinary pole, a longer one that it drops, and an expert's demonstrations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from safetensors.torch import load_file, save_file
from scipy.linalg import solve_discrete_are
from torch import nn

from vocabsem import Network

WEIGHTS = Path(__file__).with_name("policy.safetensors")  # made by the first call
ORDINARY, LONGER = 0.5, 4.0  # metres: `length` of CartPole-v1, which is half the pole's
MOST = 500  # steps of an episode, as in CartPole-v1
FIELDS = ["position", "speed", "angle", "turning"]  # of the cart, m and m/s; of the pole, rad and rad/s
ACTIONS = ["left", "right"]
DEMONSTRATED = 100  # steps of a demonstration
Policy = Callable[[np.ndarray], np.ndarray]  # observations [n, 4] -> actions [n]


def policy() -> Network:
    """The policy; the first call trains it on the ordinary pole (about 3 s) and keeps its weights beside this file."""
    module = architecture()
    if not WEIGHTS.is_file():
        save_file(trained(module).state_dict(), aside := WEIGHTS.with_suffix(f".{os.getpid()}"))
        aside.replace(WEIGHTS)  # whole or not at all: workers may read it
    module.load_state_dict(load_file(WEIGHTS))
    return Network(module, read, torch.zeros(4), ACTIONS, files=[WEIGHTS])


def architecture() -> nn.Sequential:
    """Two hidden layers and a logit for each action; the initial weights are seeded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, len(ACTIONS)))


def read(row: dict[str, Any]) -> torch.Tensor:
    """An observation as the policy takes it."""
    return torch.tensor([row[field] for field in FIELDS], dtype=torch.float32)


def trained(module: nn.Module, updates: int = 30, episodes: int = 8) -> nn.Module:
    """REINFORCE (Williams 1992): Adam, discount 0.99, returns standardised over the episodes of an update."""
    random, optimizer = np.random.default_rng(0), torch.optim.Adam(module.parameters(), lr=3e-3)

    def sampled(observed: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            right = module(torch.from_numpy(observed)).softmax(dim=1)[:, 1].numpy()
        return (random.random(len(right)) < right).astype(int)

    for update in range(updates):
        steps = list(episode_steps(sampled, ORDINARY, episodes, seed=update))
        ahead, returns = np.zeros(episodes), []
        for going, _, _ in reversed(steps):
            ahead = going * (1 + 0.99 * ahead)
            returns.append(ahead[going])
        gains = torch.from_numpy(np.concatenate(returns[::-1])).float()
        observed, actions = (torch.from_numpy(np.concatenate([step[part] for step in steps])) for part in (1, 2))
        losses = nn.functional.cross_entropy(module(observed), actions, reduction="none")
        optimizer.zero_grad()
        (losses * (gains - gains.mean()) / (gains.std() + 1e-6)).mean().backward()
        optimizer.step()
    return module


def episode_steps(
    policy: Policy, half_length: float, episodes: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Steps of episodes side by side: which still go on [episodes], and of these the observations and actions.

    Their starts follow from `seed` alone. Of the environment the pole's length is changed, with the product of mass and
    length that it keeps; the pole's mass stays 0.1 kg.
    """
    cart = CartPoleVectorEnv(episodes, max_episode_steps=MOST)
    cart.length, cart.polemass_length = half_length, cart.masspole * half_length
    observed, _ = cart.reset(seed=seed)
    going = np.ones(episodes, dtype=bool)
    while going.any():
        actions = np.zeros(episodes, dtype=np.int64)
        actions[going] = policy(seen := observed[going])
        yield going, seen, actions[going]
        observed, _, fallen, ended, _ = cart.step(actions)
        going = going & ~(fallen | ended)


def returns(policy: Policy, half_length: float, episodes: int, seed: int) -> np.ndarray:
    """Steps until the pole falls or the cart leaves the track, at most 500, [episodes]."""
    return sum((going.astype(int) for going, _, _ in episode_steps(policy, half_length, episodes, seed)), 0)


def expert(half_length: float) -> Policy:
    """The sign of a linear-quadratic regulator's force, for the cart linearised around the upright pole."""
    gravity, cart, pole, step = 9.8, 1.0, 0.1, 0.02
    mass, inertia = cart + pole, half_length * (4 / 3 - pole / (cart + pole))
    lever = pole * half_length / mass
    change = np.zeros((4, 4))
    change[0, 1] = change[2, 3] = 1
    change[1, 2], change[3, 2] = -lever * gravity / inertia, gravity / inertia
    pushed = np.array([[0], [(1 + lever / inertia) / mass], [0], [-1 / (inertia * mass)]])
    moved, forced = np.eye(4) + step * change, step * pushed
    cost = solve_discrete_are(moved, forced, np.diag([1.0, 1.0, 10.0, 1.0]), np.array([[0.1]]))
    gains = np.linalg.solve(0.1 + forced.T @ cost @ forced, forced.T @ cost @ moved)[0]
    return lambda observed: (observed @ gains < 0).astype(np.int64)


def demonstrations(episodes: int, seed: int) -> Iterator[dict[str, Any]]:
    """What the expert sees and does with the longer pole: a row a step."""
    steps = episode_steps(expert(LONGER), LONGER, episodes, seed)
    for _, observed, actions in islice(steps, DEMONSTRATED):
        for numbers, action in zip(observed.tolist(), actions, strict=True):
            yield {**dict(zip(FIELDS, numbers, strict=True)), "action": ACTIONS[action]}


def train() -> Iterator[dict[str, Any]]:
    """Training rows: of 10 episodes."""
    return demonstrations(10, seed=1000)


def test() -> Iterator[dict[str, Any]]:
    """Test rows: of 5 others."""
    return demonstrations(5, seed=2000)
