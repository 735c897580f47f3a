"""taskiq with the stream broker of taskiq-redis, as it comes: the one that ours replaces.

- Two processes, 100 jobs each at once, acknowledged after the run: all defaults. No result backend.
- What its documentation leaves to the user stays at its default: `idle_timeout` 10 minutes, no
  `maxlen` (which would drop jobs that wait).
"""

from taskiq_redis import RedisStreamBroker

from queues.adapter import PROCESSES, program, valkey_url
from queues.adapters.taskiq_application import application

broker = RedisStreamBroker(valkey_url())

OPTIONS = ["--workers", str(PROCESSES), "--log-level", "WARNING"]
ADAPTER = application(broker, [program("taskiq"), "worker", *OPTIONS, f"{__name__}:broker"])
