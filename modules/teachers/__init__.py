"""Frozen teacher networks: loading, inference, caching of logits, and temperatures."""

from .loading import TeacherFacts, load_teacher
from .logit_cache import LogitCache
from .teacher import MeanTeacher, Teacher
from .temperatures import temperature_grid

__all__ = ["LogitCache", "MeanTeacher", "Teacher", "TeacherFacts", "load_teacher", "temperature_grid"]
