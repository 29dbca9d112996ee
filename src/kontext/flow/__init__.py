"""Rectified flow: straight paths from data (t = 0) to noise (t = 1), and solvers to follow them back."""

from kontext.flow.path import interpolate, training_times, velocity
from kontext.flow.schedule import from_strength, official_mu, schedule, time_shift
from kontext.flow.solvers import SAMPLERS, adams_bashforth, euler, guided, midpoint

__all__ = [
    "SAMPLERS",
    "adams_bashforth",
    "euler",
    "from_strength",
    "guided",
    "interpolate",
    "midpoint",
    "official_mu",
    "schedule",
    "time_shift",
    "training_times",
    "velocity",
]
