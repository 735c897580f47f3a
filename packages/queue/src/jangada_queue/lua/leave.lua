-- A worker is gone. Its consumer goes too, unless it still holds messages: deleting it then would lose them.
-- KEYS: stream, workers, beats   ARGV: workers
for _, worker in ipairs(ARGV) do
    redis.call('HDEL', KEYS[2], worker)
    redis.call('ZREM', KEYS[3], worker)
    local pending = redis.pcall('XPENDING', KEYS[1], GROUP, '-', '+', 1, worker)
    if not pending.err and #pending == 0 then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], GROUP, worker)
    end
end
