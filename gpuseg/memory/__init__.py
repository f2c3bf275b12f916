"""Memory that a run stays within: how much, and where what is longer is kept."""

from gpuseg.memory.room import Room, room, working_within

__all__ = ["Room", "room", "working_within"]
