-- Take in the reports of workers of one pod. KEYS: workers, beats, drain   ARGV: worker, report, …
-- Returns: 1 when the pod is draining
local now = milliseconds()
for position = 1, #ARGV, 2 do
    redis.call('HSET', KEYS[1], ARGV[position], ARGV[position + 1])
    redis.call('ZADD', KEYS[2], now, ARGV[position])
end
return redis.call('EXISTS', KEYS[3])
