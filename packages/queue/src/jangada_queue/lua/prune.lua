-- Workers that were silent for long, and consumers that belong to no worker and hold nothing.
-- KEYS: stream, workers, beats   ARGV: silence in milliseconds   Returns: how many workers went
local before = milliseconds() - tonumber(ARGV[1])
local silent = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', before)
for _, worker in ipairs(silent) do
    redis.call('HDEL', KEYS[2], worker)
    redis.call('ZREM', KEYS[3], worker)
end
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], GROUP)
if not consumers.err then
    for _, consumer in ipairs(consumers) do
        -- Flat pairs: name, n, pending, n, idle, milliseconds, …
        local found = fields_of({nil, consumer})
        if found.pending == 0 and found.idle > tonumber(ARGV[1])
            and redis.call('HEXISTS', KEYS[2], found.name) == 0 then
            redis.call('XGROUP', 'DELCONSUMER', KEYS[1], GROUP, found.name)
        end
    end
end
return #silent
