-- Everything that is known of a queue. KEYS: stream, window, parked, counters, upstream, workers, beats
-- Returns: {waiting, claimed, parked, window}, the counters (flat), the upstream figures or '', their age in
-- milliseconds or -1, then {report, age in milliseconds} for each worker
local waiting, claimed = depth(KEYS[1])
local parked = {}
for _, tag in ipairs(redis.call('SMEMBERS', KEYS[3])) do
    table.insert(parked, tag)
    table.insert(parked, redis.call('LLEN', KEYS[3] .. ':' .. tag))
end
local now = milliseconds()
local upstream = redis.call('HMGET', KEYS[5], 'figures', 'at')
local reply = {
    {waiting, claimed, redis.call('SCARD', KEYS[2])},
    parked,
    redis.call('HGETALL', KEYS[4]),
    upstream[1] or '',
    upstream[2] and now - tonumber(upstream[2]) or -1,
}
local beats = redis.call('ZRANGE', KEYS[7], 0, -1, 'WITHSCORES')
for position = 1, #beats, 2 do
    local report = redis.call('HGET', KEYS[6], beats[position])
    if report then
        table.insert(reply, {report, now - tonumber(beats[position + 1])})
    end
end
return reply
