-- Forget messages: stream, group and window together. ARGV: id, key for each message
-- Returns: how many were still there, then the ids that were not
local reply = {0}
for position = 1, #ARGV, 2 do
    local stream, id = locate(ARGV[position])
    redis.call('XACK', stream, GROUP, id)
    if redis.call('XDEL', stream, id) == 1 then
        reply[1] = reply[1] + 1
    else
        table.insert(reply, ARGV[position])
    end
    redis.call('SREM', key('window'), ARGV[position + 1])
end
return reply
