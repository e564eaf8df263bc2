"""Who decides the ledger's order: the validators of the consortium engine and their voting power.

They are members, made validators by the authorities and no longer when suspended. State: ``validators`` holds the set
now, ``validators/<n>`` every set there has been, so that any header can be held against the validators of its time::

    validators      {"minimum","number","height","time","set":[{"org","key","power"}…]}
    validators/<n>  {"number","height","time","set"}

Two bounds keep the consensus alive and a follower able to follow. In one block at most a third of the power leaves,
and at most a third of the new power is new; a set of one may be joined by a second. And no set falls below ``minimum``,
four unless the authorities set another: with fewer, one validator's silence stops the ledger.

The engines without validators keep the same state: it is what a pilot moves to the consortium engine with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anchor.contracts.view import Changes, Value, View, refuse
from anchor.transaction import Code

STATE = "validators"
MINIMUM = 4
"""Validators below which no fault is tolerated: 3f + 1 for f = 1."""
MAX_VALIDATORS = 100
"""Validators of one consortium: each takes part in every block."""
MAX_POWER = 1_000
"""Power of one validator: enough for any weighting, and sums stay far below CometBFT's bound."""

ValidatorSet = list[Value]
"""[{"org","key","power"}…] by organisation."""


def current(view: View) -> Value:
    """Return the state value of the validators, that of an empty set where there is none yet."""
    return view.get(STATE) or {"minimum": MINIMUM, "number": 0, "height": 0, "time": 0, "set": []}


def initial(members: Sequence[Value], minimum: int, time: int) -> dict[str, Value]:
    """Return the state values of a set that a chain begins with."""
    first = sorted(members, key=lambda each: str(each["org"]))
    value = {"number": 1, "height": 0, "time": time, "set": first}
    return {STATE: {**value, "minimum": minimum}, f"{STATE}/1": value}


def with_power(view: View, org: str, key: str, power: int) -> Changes:
    """Return the changes that give a member's validator a power; 0 removes it. Refused beyond the bounds."""
    before = current(view)["set"]
    others = [each for each in before if each["org"] != org]
    if not power and len(others) == len(before):
        refuse(Code.CONFLICT, "that member is no validator")
    if {"org": org, "key": key, "power": power} in before:
        refuse(Code.CONFLICT, "that member has that power already")
    added = [{"org": org, "key": key, "power": power}] if power else []
    return _changed(view, sorted([*others, *added], key=lambda each: str(each["org"])))


def without(view: View, org: str) -> Changes:
    """Return the changes that remove a member's validator, none when it has no power. Refused beyond the bounds."""
    if all(each["org"] != org for each in current(view)["set"]):
        return {}
    return with_power(view, org, "", 0)


def with_key(view: View, org: str, key: str) -> Changes:
    """Return the changes that put a member's new key in the place of its old one, none when it has no power."""
    held = next((each for each in current(view)["set"] if each["org"] == org), None)
    if held is None or held["key"] == key:
        return {}
    return with_power(view, org, key, held["power"])


def with_minimum(view: View, minimum: int) -> Changes:
    """Return the changes that set below how many validators the set must not fall."""
    value = current(view)
    if minimum == value["minimum"]:
        refuse(Code.CONFLICT, "the minimum is that already")
    return {STATE: {**value, "minimum": minimum}}


def _changed(view: View, after: ValidatorSet) -> Changes:
    value = current(view)
    number, base = value["number"], value["set"]
    if value["height"] == view.height and number:  # the bounds are about what one block changes in all
        previous = view.get(f"{STATE}/{number - 1}")
        base = [] if previous is None else previous["set"]
    else:
        number += 1
    _check_bounds(base, after, value["minimum"])
    entry = {"number": number, "height": view.height, "time": view.time, "set": after}
    return {STATE: {**entry, "minimum": value["minimum"]}, f"{STATE}/{number}": entry}


def _check_bounds(before: ValidatorSet, after: ValidatorSet, minimum: int) -> None:
    if len(after) > MAX_VALIDATORS:
        refuse(Code.CONFLICT, f"there are at most {MAX_VALIDATORS} validators")
    if len(after) < min(minimum, len(before)):
        refuse(
            Code.CONFLICT,
            f"fewer than {minimum} validators would be left: add another one, or lower the minimum by a decision",
        )
    if len(before) < 2:
        return
    old, new = _powers(before), _powers(after)
    leaving = sum(max(0, power - new.get(key, 0)) for key, power in old.items())
    joining = sum(max(0, power - old.get(key, 0)) for key, power in new.items())
    if 3 * leaving > sum(old.values()) or 3 * joining > sum(new.values()):
        refuse(Code.CONFLICT, "more than a third of the validators' power would change in one block")


def _powers(validators: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {each["key"]: each["power"] for each in validators}
