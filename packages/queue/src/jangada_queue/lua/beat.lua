-- flags allow-oom
-- Take in the reports of workers of one pod. ARGV: pod, then worker, report for each
-- Returns: the drain flag, or nothing
local now = milliseconds()
for position = 2, #ARGV, 2 do
    redis.call('HSET', key('workers'), ARGV[position], ARGV[position + 1])
    redis.call('ZADD', key('beats'), now, ARGV[position])
end
return redis.call('GET', key('drain:' .. ARGV[1]))
