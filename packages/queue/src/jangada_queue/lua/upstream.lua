-- KEYS: upstream   ARGV: the dispatcher's figures as JSON
redis.call('HSET', KEYS[1], 'figures', ARGV[1], 'at', milliseconds())
