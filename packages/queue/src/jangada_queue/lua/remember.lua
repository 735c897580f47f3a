-- flags allow-oom
-- Queues that are used. The key is the prefix's set of them, no queue's own. ARGV: their names
redis.call('SADD', BASE, unpack(ARGV))
