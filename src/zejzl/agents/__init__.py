"""Nine agents: each useful alone and offline, better with a bus."""

from zejzl.agents.actor import ActorAgent
from zejzl.agents.analyzer import AnalyzerAgent
from zejzl.agents.base import Agent, Bus
from zejzl.agents.executor import ExecutorAgent
from zejzl.agents.improver import ImproverAgent
from zejzl.agents.learner import LearnerAgent
from zejzl.agents.memory import MemoryAgent, Stored
from zejzl.agents.observer import ObserverAgent
from zejzl.agents.pantheon import Pantheon
from zejzl.agents.reasoner import ReasonerAgent
from zejzl.agents.remembered import NotAnEvent
from zejzl.agents.validator import ValidatorAgent
from zejzl.agents.watch import Watch

__all__ = [
    "ActorAgent",
    "Agent",
    "AnalyzerAgent",
    "Bus",
    "ExecutorAgent",
    "ImproverAgent",
    "LearnerAgent",
    "MemoryAgent",
    "NotAnEvent",
    "ObserverAgent",
    "Pantheon",
    "ReasonerAgent",
    "Stored",
    "ValidatorAgent",
    "Watch",
]
