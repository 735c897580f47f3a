-- What becomes of a message whose lease has ended although it was not acknowledged.

-- To the dead letters, whole: the entry is packed because it may have any fields, or none that we know.
local function bury(fields, reason, detail)
    redis.call('XADD', key('dead'), '*', 'reason', reason, 'detail', detail, 'entry', cmsgpack.pack(fields))
end

local function with_field(fields, name, value)
    for position = 1, #fields, 2 do
        if fields[position] == name then
            fields[position + 1] = value
            return fields
        end
    end
    table.insert(fields, name)
    table.insert(fields, value)
    return fields
end

-- The entry, taken out of the stream; nil when its lease isn't held any more.
local function take_out(stream, id)
    if redis.call('XACK', stream, GROUP, id) == 0 then
        return nil
    end
    local entry = redis.call('XRANGE', stream, id, id)[1]
    if entry then
        redis.call('XDEL', stream, id)
    end
    return entry
end

-- Hand a lost message on, at once or after a delay, or bury it when it was lost too often. Returns: how it ended.
local function lose(stream, id, most, delay, detail)
    local entry = take_out(stream, id)
    if not entry then
        return nil
    end
    local found = fields_of(entry)
    local losses = (tonumber(found.losses) or 0) + 1
    local fields = with_field(entry[2], 'losses', losses)
    if losses >= most then
        bury(fields, 'poison', detail)
        return 'buried'
    end
    if delay > 0 then
        redis.call('ZADD', key('delayed'), milliseconds() + delay, cmsgpack.pack(fields))
        return 'delayed'
    end
    redis.call('XADD', RETURNED, '*', unpack(fields))
    push_tokens(1)
    return 'returned'
end
