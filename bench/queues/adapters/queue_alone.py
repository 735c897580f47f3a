"""Ours without PostgreSQL: `LeasedStreamBroker` under its own receiver, else as stock taskiq."""

from jangada_queue.taskiq import LeasedStreamBroker
from queues.adapter import PROCESSES, SLOTS, program, valkey_url
from queues.adapters.taskiq_application import application

broker = LeasedStreamBroker(valkey_url(), queue_name="leased", slots=SLOTS)

OPTIONS = ["--workers", str(PROCESSES), "--log-level", "WARNING"]
RECEIVER = ["--receiver", "jangada_queue.taskiq:LeasedReceiver"]
ADAPTER = application(
    broker, [program("taskiq"), "worker", *RECEIVER, *OPTIONS, f"{__name__}:broker"]
)
