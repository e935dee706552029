"""Exchanges that fall silent, talk nonsense, hang up, or refuse what is asked of them."""

from k2.ops.drill import Drill

DRILLS: tuple[Drill, ...] = ()
