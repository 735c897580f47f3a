-- KEYS: stream, window, parked, counters   Returns: waiting, claimed, parked, window, then the counters
local waiting, claimed = depth(KEYS[1])
local parked = 0
for _, tag in ipairs(redis.call('SMEMBERS', KEYS[3])) do
    parked = parked + redis.call('LLEN', KEYS[3] .. ':' .. tag)
end
local totals = redis.call('HMGET', KEYS[4], 'published', 'expired', 'unreadable')
return {waiting, claimed, parked, redis.call('SCARD', KEYS[2]),
    tonumber(totals[1] or 0), tonumber(totals[2] or 0), tonumber(totals[3] or 0)}
