"""One worker process: it claims, is granted and runs jobs, as many at once as it has slots.

`intake` brings jobs in, `broker` hands them to taskiq's receiver, `jangada_worker.executor` takes
each its way, `endings` writes how they ended. The parent beats for this process, so nothing that
happens here, not even a held interpreter lock, makes its jobs look abandoned while it lives.
"""
