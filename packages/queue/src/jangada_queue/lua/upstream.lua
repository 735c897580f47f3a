-- ARGV: the dispatcher's figures as JSON   Returns: who decides what becomes of the queue's messages
redis.call('HSET', key('upstream'), 'figures', ARGV[1], 'at', milliseconds())
redis.call('SETNX', key('truth'), 'postgresql')
return redis.call('GET', key('truth'))
