-- Begin the leases of claimed messages anew. Only the owner can: a plain XCLAIM would steal.
-- KEYS: stream   ARGV: consumer, ids   Returns: the ids that are still the consumer's
local kept = {}
for position = 2, #ARGV do
    local id = ARGV[position]
    local pending = redis.pcall('XPENDING', KEYS[1], GROUP, id, id, 1, ARGV[1])
    if not pending.err and #pending == 1 then
        redis.call('XCLAIM', KEYS[1], GROUP, ARGV[1], 0, id, 'JUSTID')
        table.insert(kept, id)
    end
end
return kept
