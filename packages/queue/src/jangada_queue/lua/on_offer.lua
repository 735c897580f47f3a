-- What is published and not yet acknowledged, and where the last round ended. ARGV: 1 for the messages too
-- Returns: waiting, turn, keys of the window, {key, kind, body} for each message
local messages = {}
for _, stream in ipairs(ARGV[1] == '1' and {RETURNED, STREAM} or {}) do
    for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+')) do
        local found = fields_of(entry)
        if found.key and found.kind and found.body then
            table.insert(messages, {found.key, found.kind, found.body})
        end
    end
end
return {(depth()), redis.call('GET', key('turn')) or '', redis.call('SMEMBERS', key('window')), messages}
