-- Workers are gone. Their consumers go too, unless they still hold messages: deleting one then would lose them.
-- ARGV: workers
for _, worker in ipairs(ARGV) do
    redis.call('HDEL', key('workers'), worker)
    redis.call('ZREM', key('beats'), worker)
    for _, stream in ipairs({STREAM, RETURNED}) do
        local pending = redis.pcall('XPENDING', stream, GROUP, '-', '+', 1, worker)
        if not pending.err and #pending == 0 then
            redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, worker)
        end
    end
end
