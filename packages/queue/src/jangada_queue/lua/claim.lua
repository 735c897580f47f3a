-- Take at most `count` messages of kinds that the worker knows. Others are parked, to be taken by one that knows them.
-- KEYS: stream, window, wake, low, dispatch, parked, counters, drain
-- ARGV: consumer, count, token (1 when one was taken from wake), major version, then the kinds (none: all)
-- Returns: draining (1 when refused), waiting, then {id, key, kind, body} for each message
local stream, wake = KEYS[1], KEYS[3]
local consumer, count, token, major = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4]

if redis.call('EXISTS', KEYS[8]) == 1 then
    local waiting = depth(stream)
    if token and waiting > 0 then
        push_tokens(wake, 1)
    end
    return {1, waiting}
end

local tags = {}
for position = 5, #ARGV do
    tags[major .. ':' .. ARGV[position]] = true
end
local takes_all = #ARGV < 5

local function is_known(tag)
    return tags[tag] or (takes_all and string.sub(tag, 1, #major + 1) == major .. ':')
end

-- Back into the stream with what is parked and known here, as much as can be taken now.
local function unpark(room)
    for _, tag in ipairs(redis.call('SMEMBERS', KEYS[6])) do
        local list = KEYS[6] .. ':' .. tag
        while room > 0 and is_known(tag) do
            local packed = redis.call('LPOP', list)
            if not packed then
                break
            end
            redis.call('XADD', stream, '*', unpack(cmsgpack.unpack(packed)))
            room = room - 1
        end
        if redis.call('EXISTS', list) == 0 then
            redis.call('SREM', KEYS[6], tag)
        end
    end
end

local function read()
    local reply = redis.pcall(
        'XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', count, 'STREAMS', stream, '>')
    if reply and reply.err then
        -- The server lost its data, or this is the first claim ever.
        redis.call('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM')
        reply = redis.call(
            'XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', count, 'STREAMS', stream, '>')
    end
    return reply and reply[1][2] or {}
end

local function drop(id)
    redis.call('XACK', stream, GROUP, id)
    redis.call('XDEL', stream, id)
end

local function park(entry, tag)
    drop(entry[1])
    redis.call('SADD', KEYS[6], tag)
    redis.call('RPUSH', KEYS[6] .. ':' .. tag, cmsgpack.pack(entry[2]))
end

if redis.call('EXISTS', KEYS[6]) == 1 then
    unpark(count)
end

local taken = {}
for _, entry in ipairs(read()) do
    local found = fields_of(entry)
    if not (found.v and found.key and found.kind and found.body) then
        drop(entry[1])
        redis.call('HINCRBY', KEYS[7], 'unreadable', 1)
    else
        local tag = string.match(found.v, '^%d*') .. ':' .. found.kind
        if is_known(tag) then
            table.insert(taken, {entry[1], found.key, found.kind, found.body})
        else
            park(entry, tag)
        end
    end
end

-- Tokens and work stay in step: without work no token, with work at least one.
local waiting = depth(stream)
if waiting <= 0 then
    redis.call('DEL', wake)
elseif redis.call('EXISTS', wake) == 0 then
    push_tokens(wake, 1)
end
local low = redis.call('GET', KEYS[4])
if low and waiting <= tonumber(low) then
    redis.call('DEL', KEYS[4])
    wake_dispatcher(KEYS[5])
end

local reply = {0, waiting}
for _, message in ipairs(taken) do
    table.insert(reply, message)
end
return reply
