-- needs losses
-- Hand claimed messages on to others at once, ahead of those that wait. One whose lease has ended is no longer ours.
-- ARGV: ids   Returns: how many were handed on
local released = 0
for _, name in ipairs(ARGV) do
    local stream, id = locate(name)
    local entry = take_out(stream, id)
    if entry then
        redis.call('XADD', RETURNED, '*', unpack(entry[2]))
        released = released + 1
    end
end
push_tokens(released)
return released
