-- needs rates
-- Everything that is known of a queue.
-- Returns: {waiting, claimed, window, delayed, due, due within 10 s, within 60 s, dead}, parked kinds (flat), the counters (flat), the upstream
-- figures or '', their age in milliseconds or -1, milliseconds that the oldest waits or -1, {arrived, completed} per
-- second, service times of two generations (flat), then {report, age in milliseconds} for each worker
local now = milliseconds()
local waiting, claimed = depth()
local parked = {}
for _, tag in ipairs(redis.call('SMEMBERS', key('parked'))) do
    table.insert(parked, tag)
    table.insert(parked, redis.call('LLEN', key('parked:' .. tag)))
end

-- The first that nobody has claimed, in either stream, and since when it waits.
local function oldest_wait()
    local oldest = -1
    for _, stream in ipairs(waiting > 0 and {RETURNED, STREAM} or {}) do
        local from = '-'
        local groups = redis.pcall('XINFO', 'GROUPS', stream)
        for _, group in ipairs(groups.err and {} or groups) do
            local found = fields_of({nil, group})
            from = found.name == GROUP and '(' .. found['last-delivered-id'] or from
        end
        local entry = redis.call('XRANGE', stream, from, '+', 'COUNT', 1)[1]
        if entry then
            local since = fields_of(entry).since or string.match(entry[1], '^%d+')
            oldest = math.max(oldest, now - tonumber(since), 0)
        end
    end
    return oldest
end

local function rate_of(name)
    local found = redis.call('HMGET', key('rates'), name, name .. '_at')
    return string.format('%.9g', decayed(found[1], found[2], now))
end

local function due_by(moment)
    return redis.call('ZCOUNT', key('delayed'), '-inf', moment)
end

local upstream = redis.call('HMGET', key('upstream'), 'figures', 'at')
local reply = {
    {waiting, claimed, redis.call('SCARD', key('window')), redis.call('ZCARD', key('delayed')),
        due_by(now), due_by(now + 10000), due_by(now + 60000), redis.call('XLEN', key('dead'))},
    parked,
    redis.call('HGETALL', key('counters')),
    upstream[1] or '',
    upstream[2] and now - tonumber(upstream[2]) or -1,
    oldest_wait(),
    {rate_of('arrived'), rate_of('completed')},
    redis.call('HGETALL', key('service')),
    redis.call('HGETALL', key('service:previous')),
}
local beats = redis.call('ZRANGE', key('beats'), 0, -1, 'WITHSCORES')
for position = 1, #beats, 2 do
    local report = redis.call('HGET', key('workers'), beats[position])
    if report then
        table.insert(reply, {report, now - tonumber(beats[position + 1])})
    end
end
return reply
