-- Consumers of workers that were silent for long and hold nothing; in the end the workers, too.
-- ARGV: silence in milliseconds, silence after which the last report is forgotten   Returns: how many workers went
local now = milliseconds()
local silence = tonumber(ARGV[1])
local forgotten = redis.call('ZRANGEBYSCORE', key('beats'), '-inf', now - tonumber(ARGV[2]))
for _, worker in ipairs(forgotten) do
    redis.call('HDEL', key('workers'), worker)
    redis.call('ZREM', key('beats'), worker)
end
for _, stream in ipairs({STREAM, RETURNED}) do
    local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, GROUP)
    for _, consumer in ipairs(consumers.err and {} or consumers) do
        -- Flat pairs: name, n, pending, n, idle, milliseconds, …
        local found = fields_of({nil, consumer})
        local beat = tonumber(redis.call('ZSCORE', key('beats'), found.name) or 0)
        if found.pending == 0 and found.idle > silence and now - beat > silence then
            redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, found.name)
        end
    end
end
return #forgotten
