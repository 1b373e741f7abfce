"""What a seed decides: people, their friends and groups, and the faults in order. The same seed, the same plan."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

PEOPLE = 216
LARGE = 206
"""In a group of more than 200 people, read receipts are gathered (docs/wire-protocol.md, "What a type does")."""

SMALL = (3, 10)
"""The fewest and the most people of the other groups. There is one of these for every four people."""

FRIENDS = 3
LONGEST_S = 8.0
"""The longest pause, partition or absence."""

LONGEST_BETWEEN_NODES_S = 48.0
"""The longest partition between nodes of ejabberd. A node counts as dead when it was silent for 23 to 38 s."""

AT_ONCE = (1, 1, 1, 1, 2, 2, 3)
"""How many faults happen at the same time: one of these."""


class How(StrEnum):
    """What is done to a part."""

    KILL = "kill"  # SIGKILL; it is started again
    PAUSE = "pause"  # SIGSTOP for some seconds
    RESTART = "restart"  # SIGTERM, and a new process at once, as in a rolling update
    LEAVE = "leave"  # SIGTERM, and a new process some seconds later
    JOIN = "join"  # a further process
    CUT = "cut"  # connections to a server are ended, and new ones refused, for some seconds
    HUSH = "hush"  # nothing passes to and from a server for some seconds, and nobody is told


class Fault(NamedTuple):
    """One fault: `seconds` it lasts, and `server` is the other end of a partition."""

    how: How
    part: str
    seconds: float = 0.0
    server: str = ""

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.how} {self.part}{f' from {self.server}' if self.server else ''}{lasting}"


class Step(NamedTuple):
    """Faults at the same time. `calm` is how many seconds pass before them, once the step before was survived."""

    calm: float
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Parts:
    """The parts of a system. `servers` names the servers to which a process has a way that can be cut."""

    bridges: Sequence[str]
    stores: Sequence[str]
    nodes: Sequence[str]
    apis: Sequence[str] = ("session-api",)
    alone: Sequence[str] = ("nats", "postgres", "gateway")
    """Of these there is one. Nothing is between them and whoever comes to them."""

    def servers(self, part: str) -> tuple[str, ...]:
        """Return the servers to which a process can lose its way. For a node of a cluster these are the other nodes."""
        if part in self.nodes:
            return tuple(node for node in self.nodes if node != part)
        return ("nats", "component") if part in self.bridges else ("nats", "postgres")

    @property
    def further(self) -> list[str]:
        """The processes that join in the course of a run."""
        return [*self.bridges[1:], *self.stores[1:]]


def plan_faults(seed: int, count: int, parts: Parts) -> list[Step]:
    """Return `count` faults: first further processes join, then everything happens to everybody."""
    dice = random.Random(f"faults {seed}")  # noqa: S311 - a seed names a run
    joins = [Fault(How.JOIN, part) for part in parts.further][:count]
    steps = [Step(_calm(dice), (fault,)) for fault in joins]
    left = count - len(joins)
    while left > 0:
        together = min(left, dice.choice(AT_ONCE))
        steps.append(Step(_calm(dice), tuple(_fault(dice, part, parts) for part in _choose(dice, together, parts))))
        left -= together
    return steps


def _calm(dice: random.Random) -> float:
    return round(dice.uniform(0.2, 2.0), 1)


def _choose(dice: random.Random, count: int, parts: Parts) -> list[str]:
    """Return that many different parts. Half of all faults concern bridges."""
    chosen: list[str] = []
    while len(chosen) < count:
        kinds = parts.bridges, parts.stores, parts.nodes, parts.apis, parts.alone
        kind = dice.choices(kinds, (10, 4, 3, 1, 2))[0]
        part = dice.choice(kind)
        if part not in chosen:
            chosen.append(part)
    return chosen


def _fault(dice: random.Random, part: str, parts: Parts) -> Fault:
    how = dice.choices(*_ways(part, parts))[0]
    longest = LONGEST_BETWEEN_NODES_S if how is How.HUSH and part in parts.nodes else LONGEST_S
    seconds = 0.0 if how in {How.KILL, How.RESTART} else round(dice.uniform(1.0, longest), 1)
    server = dice.choice(parts.servers(part)) if how in {How.CUT, How.HUSH} else ""
    return Fault(how, part, seconds, server)


def _ways(part: str, parts: Parts) -> tuple[tuple[How, ...], tuple[int, ...]]:
    """Return what can happen to a part, and how often each of it does."""
    ways = (How.KILL, How.PAUSE, How.RESTART), (4, 4, 3)
    if part in parts.alone:
        return ways
    if part in parts.nodes:
        return ((*ways[0], How.CUT, How.HUSH), (*ways[1], 2, 3)) if parts.servers(part) else ways
    return (*ways[0], How.LEAVE, How.CUT, How.HUSH), (4, 4, 2, 1, 2, 2)


# --- people -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Role:
    """A person of the plan. `groups` are places in the plan's groups; `dice` is the seed of what the person does."""

    user_id: str
    friends: tuple[str, ...]
    groups: tuple[int, ...]
    dice: str


@dataclass(frozen=True)
class Cast:
    """Everybody, and the groups: the members of each, of which the first makes it."""

    roles: tuple[Role, ...]
    groups: tuple[tuple[str, ...], ...]


def plan_people(seed: int, people: int = PEOPLE) -> Cast:
    """Return the people of a run. The first group is the large one."""
    dice = random.Random(f"people {seed}")  # noqa: S311
    names = [f"p{number:03}" for number in range(people)]
    sizes = [min(LARGE, people), *(dice.randint(*SMALL) for _ in range(people // 4))]
    groups = tuple(tuple(dice.sample(names, min(size, people))) for size in sizes)
    friends: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        for friend in dice.sample([other for other in names if other != name], FRIENDS // 2 + 1):
            friends[name].add(friend)
            friends[friend].add(name)
    roles = tuple(
        Role(
            name,
            tuple(sorted(friends[name])),
            tuple(place for place, members in enumerate(groups) if name in members),
            f"{seed} {name}",
        )
        for name in names
    )
    return Cast(roles, groups)
