-- Begin leases anew. Only the owner can: a plain XCLAIM would steal.
-- ARGV: consumer, then ids (none: all that are the consumer's)   Returns: the ids that are still the consumer's
local consumer = ARGV[1]
local kept = {}

local function renew(stream, pending)
    for _, claim in ipairs(pending.err and {} or pending) do
        redis.call('XCLAIM', stream, GROUP, consumer, 0, claim[1], 'JUSTID')
        table.insert(kept, name_of(stream, claim[1]))
    end
end

if #ARGV == 1 then
    for _, stream in ipairs({STREAM, RETURNED}) do
        renew(stream, redis.pcall('XPENDING', stream, GROUP, '-', '+', 100000, consumer))
    end
end
for position = 2, #ARGV do
    local stream, id = locate(ARGV[position])
    renew(stream, redis.pcall('XPENDING', stream, GROUP, id, id, 1, consumer))
end
return kept
