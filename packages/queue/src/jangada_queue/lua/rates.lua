-- Rates with memory: each event counts 1/60 per second when it happens, and a part of 1/e of that a minute later.
local MEMORY = 60000

local function decayed(rate, before, now)
    -- A clock that was set back decays nothing.
    return (tonumber(rate) or 0) * math.exp(-math.max(0, now - (tonumber(before) or now)) / MEMORY)
end

local function count_events(name, count)
    local now = milliseconds()
    local found = redis.call('HMGET', key('rates'), name, name .. '_at')
    local rate = decayed(found[1], found[2], now) + count * 1000 / MEMORY
    redis.call('HSET', key('rates'), name, string.format('%.9g', rate), name .. '_at', now)
end
