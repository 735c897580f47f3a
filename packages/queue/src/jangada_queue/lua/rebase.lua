-- The server's clock was set back, so that leases seem to have begun in the future: all begin now.
-- Returns: how many
local begun = 0
for _, stream in ipairs({STREAM, RETURNED}) do
    local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, GROUP)
    for _, consumer in ipairs(consumers.err and {} or consumers) do
        local name = fields_of({nil, consumer}).name
        for _, claim in ipairs(redis.call('XPENDING', stream, GROUP, '-', '+', 100000, name)) do
            redis.call('XCLAIM', stream, GROUP, name, 0, claim[1], 'JUSTID')
            begun = begun + 1
        end
    end
end
return begun
