-- needs losses
-- flags allow-oom
-- Take at most `count` messages of kinds that the worker knows. Others are parked, to be taken by one that knows them.
-- ARGV: consumer, pod, count, token (1 when one was taken from wake), major version, then the kinds (none: all)
-- Returns: draining (1 when refused), waiting, then {id, key, kind, body, losses} for each message
local consumer, pod, count, token, major = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5]
local FIRST_KIND = 6
local parked = key('parked')

if redis.call('EXISTS', key('drain:' .. pod)) == 1 then
    local waiting = depth()
    if token and waiting > 0 then
        push_tokens(1)
    end
    return {1, waiting}
end

local tags = {}
for position = FIRST_KIND, #ARGV do
    tags[major .. ':' .. ARGV[position]] = true
end
local takes_all = #ARGV < FIRST_KIND

local function is_known(tag)
    return tags[tag] or (takes_all and string.sub(tag, 1, #major + 1) == major .. ':')
end

-- Back with what is parked and known here, as much as can be taken now.
local function unpark(room)
    for _, tag in ipairs(redis.call('SMEMBERS', parked)) do
        local list = parked .. ':' .. tag
        while room > 0 and is_known(tag) do
            local packed = redis.call('LPOP', list)
            if not packed then
                break
            end
            redis.call('XADD', RETURNED, '*', unpack(cmsgpack.unpack(packed)))
            room = room - 1
        end
        if redis.call('EXISTS', list) == 0 then
            redis.call('SREM', parked, tag)
        end
    end
end

local function read(stream, most)
    if most <= 0 or redis.call('EXISTS', stream) == 0 then
        return {}
    end
    local reply = redis.pcall('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', most, 'STREAMS', stream, '>')
    if reply and reply.err then
        -- The server lost its data, or this is the first claim ever.
        redis.call('XGROUP', 'CREATE', stream, GROUP, '0')
        reply = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', most, 'STREAMS', stream, '>')
    end
    return reply and reply[1][2] or {}
end

local taken = {}

local function sort_out(stream, entry)
    local found = fields_of(entry)
    if not (found.v and found.key and found.kind and found.body) then
        take_out(stream, entry[1])
        bury(entry[2], 'unreadable', 'The message lacks a field of the protocol.')
        count_in('unreadable', 1)
        return
    end
    local tag = string.match(found.v, '^%d*') .. ':' .. found.kind
    if is_known(tag) then
        table.insert(taken, {name_of(stream, entry[1]), found.key, found.kind, found.body, found.losses or '0'})
    else
        take_out(stream, entry[1])
        redis.call('SADD', parked, tag)
        redis.call('RPUSH', parked .. ':' .. tag, cmsgpack.pack(entry[2]))
    end
end

-- Who claims before its first report is known to those who ask whether its pod is empty.
if redis.call('HSETNX', key('workers'), consumer, cjson.encode({pod = pod, claiming = 1})) == 1 then
    redis.call('ZADD', key('beats'), milliseconds(), consumer)
end
if redis.call('EXISTS', parked) == 1 then
    unpark(count)
end
for _, stream in ipairs({RETURNED, STREAM}) do
    for _, entry in ipairs(read(stream, count - #taken)) do
        sort_out(stream, entry)
    end
end

-- Tokens and work stay in step: without work no token, with work at least one, and no more than there is work.
local waiting = depth()
if waiting <= 0 then
    redis.call('DEL', key('wake'))
elseif redis.call('EXISTS', key('wake')) == 0 then
    push_tokens(1)
else
    redis.call('LTRIM', key('wake'), 0, waiting - 1)
end
local low = redis.call('GET', key('low'))
if low and waiting <= tonumber(low) then
    redis.call('DEL', key('low'))
    wake_dispatcher()
end

local reply = {0, waiting}
for _, message in ipairs(taken) do
    table.insert(reply, message)
end
return reply
