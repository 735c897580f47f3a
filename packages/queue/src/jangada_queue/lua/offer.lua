-- Publish a message at once where nothing waits: then there is nothing to choose from. Else wake a dispatcher.
-- One that was woken and has not come yet may find more.
-- ARGV: version, key, kind, body
-- Returns: 1 when it was published
if is_valkeys_own() then
    return 0
end
local waiting = depth()
local has_more = redis.call('EXISTS', key('low'), key('parked'), key('dispatch')) > 0
if waiting > 0 or has_more or redis.call('SADD', key('window'), ARGV[2]) == 0 then
    wake_dispatcher()
    return 0
end
redis.call('XADD', STREAM, '*', 'v', ARGV[1], 'key', ARGV[2], 'kind', ARGV[3], 'body', ARGV[4])
push_tokens(1)
count_in('published', 1)
return 1
