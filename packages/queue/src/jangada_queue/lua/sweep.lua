-- needs losses
-- Make due what is due, and hand on what was claimed longer ago than a lease.
-- ARGV: lease in milliseconds (0: the caller may not judge yet), Valkey's time at its last look, most losses, at most so
-- many of each
-- Returns: Valkey's time in milliseconds, milliseconds until the next is due (-1: none), due, returned, buried
local lease, seen, most, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = milliseconds()
if math.abs(now - seen) > lease / 2 then
    -- The clock jumped, or the caller slept: leases only seem to have ended.
    lease = 0
end
local due = redis.call('ZRANGEBYSCORE', key('delayed'), '-inf', now, 'LIMIT', 0, limit)
for _, packed in ipairs(due) do
    redis.call('ZREM', key('delayed'), packed)
    redis.call('XADD', STREAM, '*', unpack(cmsgpack.unpack(packed)))
end
push_tokens(#due)

local ended = {returned = 0, buried = 0}
if lease > 0 then
    for _, stream in ipairs({RETURNED, STREAM}) do
        local pending = redis.pcall('XPENDING', stream, GROUP, 'IDLE', lease, '-', '+', limit)
        for _, claim in ipairs(pending.err and {} or pending) do
            local how = lose(stream, claim[1], most, 0, 'Its worker fell silent while it ran.')
            if how then
                ended[how] = ended[how] + 1
            end
        end
    end
end
count_in('expired', ended.returned + ended.buried)

local next_due = redis.call('ZRANGE', key('delayed'), 0, 0, 'WITHSCORES')
local wait = next_due[2] and math.max(0, math.ceil(tonumber(next_due[2]) - now)) or -1
return {now, wait, #due, ended.returned, ended.buried}
