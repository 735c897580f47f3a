-- needs losses
-- Forget messages that were claimed longer ago than a lease, so that the next round publishes them again.
-- ARGV: lease in milliseconds, at most so many of each stream   Returns: their keys
if is_valkeys_own() then
    return {}
end
local expired = {}
for _, stream in ipairs({RETURNED, STREAM}) do
    local pending = redis.pcall('XPENDING', stream, GROUP, 'IDLE', ARGV[1], '-', '+', ARGV[2])
    for _, claim in ipairs(pending.err and {} or pending) do
        local entry = take_out(stream, claim[1])
        local found = entry and fields_of(entry).key
        if found then
            redis.call('SREM', key('window'), found)
            table.insert(expired, found)
        end
    end
end
count_in('expired', #expired)
return expired
