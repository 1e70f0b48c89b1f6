"""The same model under different providers' names: which deployments may stand in for which."""

from __future__ import annotations

from collections.abc import Iterable

from .model import Deployment

FREE = ":free"
"""Ends the name of a model that one provider also serves without charge."""
Group = tuple[Deployment, ...]


class Equivalents:
    """Groups of deployments that serve one model; those that share a member are one group. Case does not count."""

    __slots__ = ("_by_model", "_by_name", "groups")

    def __init__(self, groups: Iterable[Iterable[Deployment]] = ()) -> None:
        merged: dict[int, dict[tuple[str, str], Deployment]] = {}
        home: dict[tuple[str, str], int] = {}
        """The number of the group that each is in."""
        for number, group in enumerate(groups):
            new = {_key(each): each for each in group}
            first, *others = sorted({home[key] for key in new if key in home}) or [number]
            joined = merged.setdefault(first, {})
            for more in (*map(merged.pop, others), new):
                for key, each in more.items():
                    joined.setdefault(key, each)
                    home[key] = first
        self.groups: tuple[Group, ...] = tuple(tuple(each.values()) for each in merged.values() if len(each) > 1)
        """In the order in which they were given, their members too."""
        self._by_name = {_key(each): group for group in self.groups for each in group}
        self._by_model: dict[str, dict[Deployment, None]] = {}
        for group in self.groups:
            for model in {each.model.lower() for each in group}:
                self._by_model.setdefault(model, {}).update(dict.fromkeys(group))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equivalents) and other.groups == self.groups

    def __hash__(self) -> int:
        return hash(self.groups)

    def of(self, deployment: Deployment) -> Group:
        """Who else serves the model of *deployment*. What a provider serves free of charge is never replaced by the
        same provider's paid one."""
        group = self._by_name.get(_key(deployment))
        provider, model = deployment
        free = model.lower().endswith(FREE)
        if group is None and free:
            group = self._by_name.get((provider, model[: -len(FREE)].lower()))
        return tuple(
            each
            for each in group or ()
            if _key(each) != _key(deployment)
            and not (free and each.provider == provider and not each.model.lower().endswith(FREE))
        )

    def named(self, model: str) -> Group:
        """Who serves what some provider calls *model*."""
        return tuple(self._by_model.get(model.lower(), ()))


def _key(deployment: Deployment) -> tuple[str, str]:
    return deployment.provider, deployment.model.lower()


NO_EQUIVALENTS = Equivalents()
