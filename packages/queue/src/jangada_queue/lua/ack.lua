-- Forget messages: the stream, the group and the window together.
-- KEYS: stream, window   ARGV: id, key for each message   Returns: how many were still there
local removed = 0
for position = 1, #ARGV, 2 do
    redis.call('XACK', KEYS[1], GROUP, ARGV[position])
    removed = removed + redis.call('XDEL', KEYS[1], ARGV[position])
    redis.call('SREM', KEYS[2], ARGV[position + 1])
end
return removed
