-- Shared by the scripts below it: every script file is sent with this in front.

local GROUP = 'workers'

-- Entries in the stream that nobody has claimed. Acknowledged ones are deleted, so the length is waiting plus claimed.
-- (The group's own lag turns nil once an undelivered entry was deleted.)
local function depth(stream)
    local length = redis.call('XLEN', stream)
    local pending = redis.pcall('XPENDING', stream, GROUP)
    local claimed = pending.err and 0 or pending[1]
    return length - claimed, claimed
end

local function fields_of(entry)
    local found = {}
    for position = 1, #entry[2], 2 do
        found[entry[2][position]] = entry[2][position + 1]
    end
    return found
end

-- One token suffices for a dispatcher: it then works until nothing is left.
local function wake_dispatcher(dispatch)
    if redis.call('EXISTS', dispatch) == 0 then
        redis.call('RPUSH', dispatch, '1')
    end
end

local function push_tokens(wake, count)
    for _ = 1, count do
        redis.call('RPUSH', wake, '1')
    end
end

local function milliseconds()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
