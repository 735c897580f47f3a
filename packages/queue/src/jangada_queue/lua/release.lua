-- Hand claimed messages on to others at once, under a new id. One whose lease has ended is no longer ours: nothing is done.
-- KEYS: stream, wake   ARGV: ids   Returns: how many were handed on
local released = 0
for _, id in ipairs(ARGV) do
    local ours = redis.pcall('XACK', KEYS[1], GROUP, id)
    if ours == 1 then
        local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
        if entry then
            redis.call('XDEL', KEYS[1], id)
            redis.call('XADD', KEYS[1], '*', unpack(entry[2]))
            released = released + 1
        end
    end
end
push_tokens(KEYS[2], released)
return released
