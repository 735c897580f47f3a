-- The window says that messages are out, and there are none: part of the data was lost. Forget the window.
-- Returns: how many keys were forgotten (0 when messages wait or are claimed, or are a taskiq application's)
if is_valkeys_own() or redis.call('XLEN', STREAM) + redis.call('XLEN', RETURNED) > 0 then
    return 0
end
local forgotten = redis.call('SCARD', key('window'))
redis.call('DEL', key('window'))
for _, tag in ipairs(redis.call('SMEMBERS', key('parked'))) do
    redis.call('DEL', key('parked:' .. tag))
end
redis.call('DEL', key('parked'))
return forgotten
