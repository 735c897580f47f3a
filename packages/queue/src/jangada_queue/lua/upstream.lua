-- flags allow-oom
-- ARGV: the dispatcher's figures as JSON   Returns: who decides what becomes of the queue's messages
redis.call('SETNX', key('truth'), 'postgresql')
if is_valkeys_own() then
    redis.call('DEL', key('upstream'))
else
    redis.call('HSET', key('upstream'), 'figures', ARGV[1], 'at', milliseconds())
end
return redis.call('GET', key('truth'))
