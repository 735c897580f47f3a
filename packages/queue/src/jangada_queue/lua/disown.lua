-- Forget what is parked and known to none of these: whoever holds the truth offers it again when a worker knows it.
-- ARGV: tags (major version:kind) that the living workers know
-- Returns: how many messages were forgotten
if is_valkeys_own() then
    return 0
end
local known = {}
for _, tag in ipairs(ARGV) do
    known[tag] = true
end
local forgotten = 0
for _, tag in ipairs(redis.call('SMEMBERS', key('parked'))) do
    if not known[tag] then
        local list = key('parked') .. ':' .. tag
        local packed = redis.call('LPOP', list)
        while packed do
            local message = fields_of({nil, cmsgpack.unpack(packed)})
            redis.call('SREM', key('window'), message.key)
            forgotten = forgotten + 1
            packed = redis.call('LPOP', list)
        end
        redis.call('SREM', key('parked'), tag)
    end
end
return forgotten
