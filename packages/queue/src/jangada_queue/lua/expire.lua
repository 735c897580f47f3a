-- Forget messages that were claimed longer ago than a lease, so that the next round publishes them again.
-- KEYS: stream, window, counters   ARGV: lease in milliseconds, at most so many   Returns: their keys
local pending = redis.pcall('XPENDING', KEYS[1], GROUP, 'IDLE', ARGV[1], '-', '+', ARGV[2])
if pending.err then
    return {}
end
local expired = {}
for _, claim in ipairs(pending) do
    local entry = redis.call('XRANGE', KEYS[1], claim[1], claim[1])[1]
    redis.call('XACK', KEYS[1], GROUP, claim[1])
    if entry then
        local key = fields_of(entry).key
        redis.call('XDEL', KEYS[1], claim[1])
        if key then
            redis.call('SREM', KEYS[2], key)
            table.insert(expired, key)
        end
    end
end
if #expired > 0 then
    redis.call('HINCRBY', KEYS[3], 'expired', #expired)
end
return expired
