-- Returns: waiting, claimed, parked, window, then the counters
local waiting, claimed = depth()
local parked = 0
for _, tag in ipairs(redis.call('SMEMBERS', key('parked'))) do
    parked = parked + redis.call('LLEN', key('parked:' .. tag))
end
local totals = redis.call('HMGET', key('counters'), 'published', 'expired', 'unreadable')
return {waiting, claimed, parked, redis.call('SCARD', key('window')),
    tonumber(totals[1] or 0), tonumber(totals[2] or 0), tonumber(totals[3] or 0)}
