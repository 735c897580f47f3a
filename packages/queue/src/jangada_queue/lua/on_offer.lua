-- What is published and not yet acknowledged, and where the last round ended.
-- KEYS: stream, window, turn   ARGV: 1 for the messages too
-- Returns: waiting, turn, keys of the window, then key, kind, body for each message
local waiting = depth(KEYS[1])
local messages = {}
if ARGV[1] == '1' then
    for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
        local found = fields_of(entry)
        if found.key and found.kind and found.body then
            table.insert(messages, {found.key, found.kind, found.body})
        end
    end
end
return {waiting, redis.call('GET', KEYS[3]) or '', redis.call('SMEMBERS', KEYS[2]), messages}
