-- Shared by the scripts below it: every script file is sent with this in front.
-- KEYS[1] is the queue's base, `PREFIX:{QUEUE}`. All of its keys begin with it, so they lie in one slot of a cluster.

local GROUP = 'workers'
local BASE = KEYS[1]

local function key(name)
    return BASE .. ':' .. name
end

-- A message waits in `stream`, or in `returned` when it was claimed before: those go first.
local STREAM, RETURNED = key('stream'), key('returned')

-- To the outside the ids of `returned` begin with an r.
local function locate(id)
    if string.sub(id, 1, 1) == 'r' then
        return RETURNED, string.sub(id, 2)
    end
    return STREAM, id
end

local function name_of(stream, id)
    return stream == RETURNED and 'r' .. id or id
end

-- How many wait, and how many are claimed. Acknowledged entries are deleted, so the length is the sum of both.
-- (The group's own lag turns nil once an undelivered entry was deleted.)
local function depth()
    local waiting, claimed = 0, 0
    for _, stream in ipairs({STREAM, RETURNED}) do
        local length = redis.call('XLEN', stream)
        if length > 0 then
            local pending = redis.pcall('XPENDING', stream, GROUP)
            local held = pending.err and 0 or pending[1]
            waiting, claimed = waiting + length - held, claimed + held
        end
    end
    return waiting, claimed
end

-- Whether a taskiq application serves the queue: then no dispatcher may touch its messages.
local function is_valkeys_own()
    return redis.call('GET', key('truth')) == 'valkey'
end

local function fields_of(entry)
    local found = {}
    for position = 1, #entry[2], 2 do
        found[entry[2][position]] = entry[2][position + 1]
    end
    return found
end

-- One token suffices for a dispatcher: it then works until nothing is left.
local function wake_dispatcher()
    if redis.call('EXISTS', key('dispatch')) == 0 then
        redis.call('RPUSH', key('dispatch'), '1')
    end
end

local function push_tokens(count)
    for _ = 1, count do
        redis.call('RPUSH', key('wake'), '1')
    end
end

local function milliseconds()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function count_in(counter, by)
    if by > 0 then
        redis.call('HINCRBY', key('counters'), counter, by)
    end
end
