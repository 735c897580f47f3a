-- flags allow-oom
-- Whose queue this is: PostgreSQL's or Valkey's own. ARGV: who asks   Returns: who decides
redis.call('SETNX', key('truth'), ARGV[1])
return redis.call('GET', key('truth'))
