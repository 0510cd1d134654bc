"""Door to `zejzl.magic`. Absolute on purpose: a relative import would make every class twice."""

from zejzl.magic import CircuitBreaker as CircuitBreaker
from zejzl.magic import CircuitBreakerConfig as CircuitBreakerConfig
from zejzl.magic import CircuitBreakerState as CircuitBreakerState
from zejzl.magic import FairyMagic as FairyMagic
from zejzl.magic import HealingRecord as HealingRecord
