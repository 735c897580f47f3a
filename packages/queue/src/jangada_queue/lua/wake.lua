-- KEYS: dispatch
wake_dispatcher(KEYS[1])
