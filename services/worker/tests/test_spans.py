"""One trace from the request to the job."""

import subprocess
import sys

PROGRAM = """
from uuid import UUID
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from jangada.jobs.delivery.grant import GrantedJob
from jangada_worker.spans import job_span

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
job = GrantedJob(UUID(int=1), UUID(int=2), "ping", "default", {}, 1, 3, 0, 0, None, parent, 0.0)
with job_span(job):
    pass
(span,) = exporter.get_finished_spans()
print(span.name, format(span.context.trace_id, "032x"), format(span.parent.span_id, "016x"))
"""


def test_a_jobs_span_continues_the_trace_of_its_request() -> None:
    """In a process of its own: a tracer provider is for ever."""
    answer = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == [
        *("ping", "process"),
        "0af7651916cd43dd8448eb211c80319c",
        "b7ad6b7169203331",
    ]


def test_without_tracing_no_tracing_code_is_loaded() -> None:
    program = PROGRAM.split("from opentelemetry", maxsplit=1)[0] + (
        "import sys\n"
        "from jangada.jobs.delivery.grant import GrantedJob\n"
        "from jangada_worker.spans import job_span\n"
        "job = GrantedJob(UUID(int=1), UUID(int=2), 'p', 'q', {}, 1, 3, 0, 0, None, None, 0.0)\n"
        "with job_span(job):\n    pass\n"
        "print(any(name.startswith('opentelemetry.sdk') for name in sys.modules))\n"
    )
    answer = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"
