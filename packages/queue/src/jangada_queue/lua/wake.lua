-- flags allow-oom
-- Wake a dispatcher for the queue.
wake_dispatcher()
